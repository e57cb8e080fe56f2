"""A real S3 server on this machine's loopback (moto), which answers as a bad day would have it, by a seed."""

import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from random import Random
from typing import Any, NoReturn

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wsgi import get_input_stream

Answer = Iterable[bytes]
App = Callable[[Any, Any], Answer]
Fault = Callable[["Faulty", Any, Any], Answer]


class Faulty:
    """An S3 server's app in front of which a share of the requests meets with a fault."""

    def __init__(self) -> None:
        self.app: App = DomainDispatcherApplication(create_backend_app)
        self.rate = 0.0
        self.kinds: tuple[str, ...] = tuple(FAULTS)
        self.random = Random(0)
        self.met: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self, environ: Any, start: Any) -> Answer:
        with self._lock:
            kind = self.random.choice(self.kinds) if self.random.random() < self.rate else ""
            self.met[kind] += 1
        return FAULTS[kind](self, environ, start) if kind else self.app(environ, start)

    def done(self, environ: Any) -> bytes:
        """Do what is asked, and keep the answer."""
        said: list[Any] = []
        return b"".join(self.app(environ, lambda *given: said.append(given)))


def refuse(server: Faulty, environ: Any, start: Any) -> Answer:
    """An error, and nothing is done."""
    get_input_stream(environ).read()
    return _error(server, start)


def _error(server: Faulty, start: Any) -> Answer:
    status = server.random.choice(("500 InternalError", "503 SlowDown"))
    start(status, [("Content-Type", "application/xml")])
    return [f"<Error><Code>{status[4:]}</Code><Message>no</Message></Error>".encode()]


def do_and_refuse(server: Faulty, environ: Any, start: Any) -> Answer:
    """An error, though it is done: what is asked for comes twice."""
    server.done(environ)
    return _error(server, start)


def drop(server: Faulty, environ: Any, start: Any) -> Answer:
    """The connection breaks off before anything is done."""
    _hang_up(environ)


def _hang_up(environ: Any) -> NoReturn:
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionError


def do_and_drop(server: Faulty, environ: Any, start: Any) -> Answer:
    """The connection breaks off once it is done."""
    server.done(environ)
    _hang_up(environ)


def cut(server: Faulty, environ: Any, start: Any) -> Answer:
    """The answer breaks off in the middle."""
    data = b"".join(server.app(environ, start))
    yield data[: len(data) // 2]
    _hang_up(environ)


def wait(server: Faulty, environ: Any, start: Any) -> Answer:
    """The answer takes its time."""
    time.sleep(server.random.uniform(0, 0.2))
    return server.app(environ, start)


FAULTS: Mapping[str, Fault] = {
    "refuse": refuse,
    "do and refuse": do_and_refuse,
    "drop": drop,
    "do and drop": do_and_drop,
    "cut": cut,
    "wait": wait,
}


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *args: Any) -> None:
        pass


@contextmanager
def serving() -> Iterator[Faulty]:
    """A server, which s3fs finds by the usual variables, with a bucket called "bucket"."""
    import s3fs

    app = Faulty()
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    given = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
    given["AWS_ENDPOINT_URL_S3"] = f"http://127.0.0.1:{server.port}"
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        s3fs.S3FileSystem().mkdir("bucket")
        yield app
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
        s3fs.S3FileSystem.clear_instance_cache()
        server.shutdown()
