"""How a command line ends: a user's mistake is one line and exit code 2, never a traceback."""

import os
import sys
from typing import NoReturn

import typer

from macco.pipeline.errors import UserError


def run(app: typer.Typer, name: str) -> NoReturn:
    """Run a typer app and exit: 0 done, 1 some work failed, 2 a mistake of the user's, 130 interrupted."""
    try:
        code = app(standalone_mode=False) or 0
    except UserError as error:
        print(f"{name}: {_one_line(str(error))}", file=sys.stderr)
        code = 2
    except (KeyboardInterrupt, typer.Abort):
        code = 130  # what typer itself returns, in some versions
    except BrokenPipeError:  # the reader of our output has gone: `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except Exception as error:
        # Typer's own errors (a missing or malformed option); which package's class they have depends on its version.
        message = getattr(error, "format_message", None)
        if message is None:
            raise
        print(f"{name}: {_one_line(message())} (see {name} --help)", file=sys.stderr)
        code = 2
    if code == 130:
        print(
            f"{name}: interrupted; what is done is kept, and the same command can be given again",
            file=sys.stderr,
        )
    sys.exit(code)


def _one_line(message: str) -> str:
    return " ".join(message.split())
