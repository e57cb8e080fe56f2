"""Runs an application of ours until it is interrupted."""

import contextlib
import secrets
import socket
import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from macco.pipeline.errors import UserError
from macco.pipeline.page.guard import LOOPBACK, TOKEN

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from macco.pipeline.page.gallery import Gallery

PORT: Final = 8765
PATIENCE: Final = 5  # seconds for answers that are on their way when the server is ended


def serve(
    make: "Callable[[str | None], Starlette]",
    *,
    host: str,
    port: int,
    token: str | None = None,
    gallery: "Gallery | None" = None,
    say: Callable[[str], None] = partial(print, flush=True),
) -> None:
    """Serve `make(token)`; says where. Off this machine a token is needed: one is made up if none is given.

    gallery: what it serves; the first Ctrl-C ends its questions. Says first if not all of it can be shown.
    Raises UserError for a token that is none, and where nothing can listen there.
    """
    import uvicorn

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            if gallery is not None:
                gallery.end()  # before answers on their way are waited for
            super().handle_exit(sig, frame)

    if token is not None and not TOKEN.fullmatch(token):
        raise UserError(
            "a token is at least one character, each of ASCII and no space: --token, or MACCO_TOKEN"
        )
    if token is None and host not in LOOPBACK:
        token = secrets.token_urlsafe(24)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise UserError(f"cannot listen on {host} port {port}: {error}; another one: --port") from error
    with listening:
        name = f"[{host}]" if ":" in host else host
        query = f"?token={quote(token, safe='')}" if token else ""
        app = make(token)
        if gallery is not None and gallery.failed:
            print(gallery.failed, file=sys.stderr)
        say(f"http://{name}:{listening.getsockname()[1]}/{query}  (Ctrl-C ends it)")
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=PATIENCE,
        )
        with contextlib.suppress(KeyboardInterrupt):
            Server(config).run(sockets=[listening])
