"""What the page asks for: its own files, JSON about one store, the store's images. Tags are all that is written."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from macco.pipeline.errors import UserError
from macco.pipeline.page.figures import BROKEN
from macco.pipeline.page.filter import Filter
from macco.pipeline.page.gallery import PER_PAGE, Gallery
from macco.pipeline.page.guard import Guard
from macco.pipeline.page.html import SCRIPTS, linked, static

SIDES: Final = (64, 2048)  # pixels of an image's long side that may be asked for
TYPES: Final = {"css": "text/css", "js": "text/javascript"}

Answer = Callable[[Request], Any]


def own(name: str, text: str) -> Route:
    """One of the page's own files."""
    return Route(f"/{name}", lambda request: Response(text, media_type=TYPES[name.rpartition(".")[2]]))


def store_app(
    gallery: Gallery,
    *,
    threshold: float,
    token: str | None = None,
    more: Sequence[BaseRoute] = (),
    about: Mapping[str, Any] | None = None,
) -> Starlette:
    """The page of a store. `threshold`: boxes from which score it shows at first; `about`: more that it is told.

    more: routes beside its own, in front of them.
    """

    def store(request: Request) -> Any:
        url = gallery.store.url
        known = {
            "store": url,
            "name": url.rstrip("/").rpartition("/")[2],
            "threshold": threshold,
            "page": PER_PAGE,
        }
        settings = gallery.store.description()["settings"]
        return known | {"settings": settings, "failed": gallery.failed, **(about or {})}

    def figures(request: Request) -> Any:
        at, limit = (_number(request, name, default) for name, default in (("at", 0), ("limit", PER_PAGE)))
        return gallery.figures(_filter(request), at, limit)

    def facets(request: Request) -> Any:
        filter = _filter(request)
        found = gallery.facets(filter, request.query_params.get("like", ""))
        return found | {"where": gallery.where(filter), "failed": gallery.failed}

    def image(request: Request) -> Response:
        side = min(max(_number(request, "side", 480), SIDES[0]), SIDES[1])
        try:
            data = gallery.jpeg(request.query_params.get("id", ""), side)
        except BROKEN as error:
            return JSONResponse({"error": f"no image: {error}"}, 404)
        return Response(data, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=600"})

    async def tag(request: Request) -> Response:
        from starlette.concurrency import run_in_threadpool

        try:
            given = await request.json()
            name, word, on = (given[key] for key in ("id", "tag", "on"))
            if not (isinstance(name, str) and isinstance(word, str) and isinstance(on, bool)):
                raise TypeError
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError('a tag is {"id": image, "tag": word, "on": true or false}') from error
        return JSONResponse({"tags": await run_in_threadpool(gallery.tag, name, word, on)})

    routes = [
        *more,
        Route("/", lambda request: HTMLResponse(linked("index.html", SCRIPTS))),
        *(own(name, static(name)) for name in ("style.css", *SCRIPTS)),
        Route("/api/store", _json(store)),
        Route("/api/figures", _json(figures)),
        Route("/api/figure", _json(lambda request: gallery.figure(request.query_params.get("id", "")))),
        Route("/api/facets", _json(facets)),
        Route("/api/scores", _json(lambda request: gallery.scores(_filter(request)))),
        Route("/api/tags", tag, methods=["POST"]),
        Route("/image", image),
    ]
    return application(routes, token)


def application(routes: Sequence[BaseRoute], token: str | None) -> Starlette:
    """Routes behind the guard; a user's mistake is answered with its one line."""

    def mistake(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": str(error)}, 400)

    return Starlette(
        routes=routes, middleware=[Middleware(Guard, token=token)], exception_handlers={UserError: mistake}
    )


def _json(answer: Answer) -> Callable[[Request], Response]:
    return lambda request: JSONResponse(answer(request))


def _filter(request: Request) -> Filter:
    return Filter.of(request.query_params.multi_items(), ("at", "limit", "like"))


def _number(request: Request, name: str, default: int) -> int:
    try:
        return int(request.query_params.get(name, default))
    except ValueError as error:
        raise UserError(f"{name} is a whole number, and not {request.query_params[name]!r}") from error
