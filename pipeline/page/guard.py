"""Who may ask a server of ours: people at this machine, or those who have its token; and what a page of it may do."""

import hmac
import re
from typing import Final
from urllib.parse import urlencode

from starlette.datastructures import URL, Headers, MutableHeaders, QueryParams
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
TOKEN: Final = re.compile("[!-~]+")  # what a header, a cookie and an address can hold
# Nothing is loaded from elsewhere, and nothing that a store holds can become a script.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PORT: Final = re.compile(r":[0-9]+$")
_HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Guard:
    """ASGI middleware around an application.

    Without a token only names of this machine are answered to (a page elsewhere that makes its own name lead here
    is refused). With one every request brings it: as a cookie, which `?token=` sets, or as a bearer.
    What changes anything comes as JSON from this very page.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        answer = self._refusal(scope)
        await (answer or self._app)(scope, receive, with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        name = _PORT.sub("", host)
        if self._token is None and name.strip("[]") not in LOOPBACK:
            return PlainTextResponse(f"this server answers to {', '.join(LOOPBACK)} alone", 403)
        if self._token is not None:
            query = QueryParams(scope["query_string"])
            if "token" in query:
                return self._welcome(scope, query, host)
            given = cookie_parser(headers.get("cookie", "")).get(cookie_of(host))
            if given is None:
                given = headers.get("authorization", "").removeprefix("Bearer ")
            if not self._is_token(given):
                return PlainTextResponse("open the address that the command printed, with its token", 401)
        if scope["method"] not in ("GET", "HEAD"):
            origin = headers.get("origin")
            if not headers.get("content-type", "").startswith("application/json"):
                return PlainTextResponse("changes come as application/json", 415)
            if origin is not None and URL(origin).netloc != host:
                return PlainTextResponse("changes come from this page alone", 403)
        return None

    def _welcome(self, scope: Scope, query: QueryParams, host: str) -> Response:
        """Put the token into a cookie, and out of the address."""
        if not self._is_token(query["token"]):
            return PlainTextResponse("that is not this server's token", 401)
        rest = urlencode([pair for pair in query.multi_items() if pair[0] != "token"])
        path = "/" + scope["path"].lstrip("/")  # after two slashes a browser reads another host's name
        answer = RedirectResponse(path + (f"?{rest}" if rest else ""), 303)
        answer.set_cookie(cookie_of(host), query["token"], httponly=True, samesite="strict")
        return answer

    def _is_token(self, given: str) -> bool:
        return bool(self._token) and hmac.compare_digest(given.encode(), str(self._token).encode())


def cookie_of(host: str) -> str:
    """The cookie's name for an address (name:port): browsers hand one name's cookies to servers at all its ports."""
    port = _PORT.search(host)
    return f"macco_token_{port[0][1:] if port else 80}"
