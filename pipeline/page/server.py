"""Runs an application of ours until it is interrupted."""

import contextlib
import secrets
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from macco.pipeline.errors import UserError
from macco.pipeline.page.guard import LOOPBACK

if TYPE_CHECKING:
    from starlette.applications import Starlette

PORT: Final = 8765


def serve(
    make: "Callable[[str | None], Starlette]",
    *,
    host: str,
    port: int,
    token: str | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Serve `make(token)`; says where. Off this machine a token is needed: one is made up if none is given.

    Raises UserError where nothing can listen there.
    """
    import uvicorn

    if token is None and host not in LOOPBACK:
        token = secrets.token_urlsafe(24)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise UserError(f"cannot listen on {host} port {port}: {error}; another one: --port") from error
    with listening:
        name = f"[{host}]" if ":" in host else host
        query = f"?token={token}" if token else ""
        app = make(token)
        say(f"http://{name}:{listening.getsockname()[1]}/{query}  (Ctrl-C ends it)")
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, lifespan="off", server_header=False
        )
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listening])
