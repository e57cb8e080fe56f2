"""What the command lines have in common: how they are made, how they help, and how they end."""

import os
import re
import signal
import sys
from importlib.abc import MetaPathFinder
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from macco.pipeline.errors import UserError


class _Commands(TyperGroup):
    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command; the indented lines of its help, which are examples, stay lines and are not filled."""
        command = super().get_command(ctx, cmd_name)
        if command is not None and command.help:
            command.help = re.sub(r"\n\n(?= )", "\n\n\b\n", command.help)
        return command


def app(help: str) -> typer.Typer:
    """A typer app with the habits of both command lines: -h, --version, shell completion, examples in lines."""
    made = typer.Typer(
        cls=_Commands,
        help=help,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @made.callback()
    def options(
        version: Annotated[
            bool,
            typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit."),
        ] = False,
    ) -> None:
        pass

    return made


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"macco {version('macco')}")
        raise typer.Exit


class _WithoutPandas(MetaPathFinder):
    """To this package and to pyarrow there is no pandas: nothing here uses it, but pyarrow asks for it with the first
    list that it is given, and importing it takes longer than most commands. Other libraries find it.
    """

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name != "pandas":
            return
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and "importlib" in frame.f_globals.get("__name__", ""):
            frame = frame.f_back
        if frame is not None and frame.f_globals.get("__name__", "").startswith(("macco.", "pyarrow.")):
            raise ModuleNotFoundError("No module named 'pandas'", name="pandas")


_interrupts: list[int] = []  # signals that came


def interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """A signal's handler: end as Ctrl-C does, with the signal's own exit code."""
    _interrupts.append(number)
    raise KeyboardInterrupt


def run(app: typer.Typer, name: str) -> NoReturn:
    """Run a typer app and exit: 0 done, 1 some work failed, 2 a mistake of the user's, 130 Ctrl-C, 143 SIGTERM.

    Without arguments it shows its help. SIGTERM is as the system has it where a command does not `interrupt` on it.
    """
    sys.meta_path.insert(0, _WithoutPandas())
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as in a shell's background job
        signal.signal(signal.SIGINT, interrupt)
    try:
        code = app(sys.argv[1:] or ["--help"], prog_name=name, standalone_mode=False) or 0
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
        if _interrupts:  # some libraries make an error of their own of it, DuckDB a RuntimeError
            code = 130
        elif message is None and (_of_files(error) and not os.environ.get("MACCO_TRACEBACK")):
            print(
                f"{name}: {type(error).__name__}: {_one_line(str(error))} (MACCO_TRACEBACK=1 shows where)",
                file=sys.stderr,
            )
            code = 2
        elif message is None:
            raise
        else:
            print(f"{name}: {_one_line(message())} (see {name} --help)", file=sys.stderr)
            code = 2
    if code == 130:
        code = 128 + (_interrupts or [signal.SIGINT])[0]
        print(
            f"{name}: interrupted; what is done is kept, and the same command can be given again",
            file=sys.stderr,
        )
    sys.exit(code)


def _of_files(error: Exception) -> bool:
    """Tell an error of the machine's or of a damaged file from one of this program's."""
    library = type(error).__module__.partition(".")[0]
    return isinstance(error, OSError | MemoryError) or library in (
        "duckdb",
        "_duckdb",
        "pyarrow",
        "safetensors",
        "botocore",
        "aiohttp",
        "gcsfs",
    )


def _one_line(message: str) -> str:
    return " ".join(message.split())
