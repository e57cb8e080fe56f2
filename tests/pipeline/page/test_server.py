"""Who is answered, and what no request can reach."""

import io
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest
from PIL import Image
from starlette.testclient import TestClient

from macco.pipeline.errors import UserError
from macco.pipeline.page import questions
from macco.pipeline.page.app import store_app
from macco.pipeline.page.filter import Filter
from macco.pipeline.page.gallery import Gallery, Kept
from macco.pipeline.page.guard import cookie_of
from macco.pipeline.page.html import whole
from macco.pipeline.page.server import serve
from macco.pipeline.store import Store
from macco.preprocess.look.view import write_page
from tests.support.pages import HOSTILE, held, hostile_store

HERE = "http://127.0.0.1:8765"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "secret.jpg").write_bytes(b"secret")
    return hostile_store(folder)


@pytest.fixture(scope="module")
def gallery(store: Store) -> Gallery:
    made = Gallery(store)
    made.fill()
    return made


def client(gallery: Gallery, token: str | None = None, base: str = HERE) -> TestClient:
    return TestClient(store_app(gallery, threshold=0.3, token=token), base_url=base, follow_redirects=False)


def test_everything_of_a_hostile_store_is_found_by_its_name(gallery: Gallery) -> None:
    asked = client(gallery)
    figures = asked.get("/api/figures").json()["figures"]
    assert [figure["key"] for figure in figures] == [*HOSTILE, "lost"]
    for figure in figures:
        assert asked.get("/api/figure", params={"id": figure["id"]}).json() == figure
        image = asked.get("/image", params={"id": figure["id"], "side": 64})
        if figure["key"] == "lost":
            assert image.status_code == 404
            assert "no image" in image.json()["error"]
        else:
            assert image.headers["content-type"] == "image/jpeg"
            assert max(Image.open(io.BytesIO(image.content)).size) == 64


@pytest.mark.parametrize(
    "path",
    [
        "/../store.json",
        "/%2e%2e/store.json",
        "/static/../app.py",
        "/store.json",
        "/shards/00000.json",
        "/image/../../secret.jpg",
        "//etc/passwd",
        "/app.py",
        "/index.html",
    ],
)
def test_no_path_is_a_file(path: str, gallery: Gallery) -> None:
    assert client(gallery).get(path).status_code == 404


@pytest.mark.parametrize(
    "name",
    [
        "",
        "../secret.jpg",
        "/etc/passwd",
        "d/00000/../../secret.jpg",
        "d/00000/nothing",
        "d/../00000/lost",
        "\0",
    ],
)
def test_an_image_is_one_of_the_stores_rows(name: str, gallery: Gallery) -> None:
    for route in ("/image", "/api/figure"):
        answer = client(gallery).get(route, params={"id": name})
        assert answer.status_code == 400
        assert "no image" in answer.json()["error"]


@pytest.mark.parametrize(
    "where",
    [
        "(SELECT content FROM read_text('/etc/passwd')) <> ''",
        "key IN (SELECT file FROM glob('/*'))",
        "true) UNION (SELECT 1",
        "true); COPY (SELECT 1) TO '{folder}/out.csv'; SELECT (1",
        "1 IN (WITH x AS (COPY (SELECT 1) TO '{folder}/out.csv') SELECT 1)",
        "nonsense >",
        "colour = 'red'",
    ],
)
def test_sql_of_the_page_reads_the_store_alone(where: str, gallery: Gallery, store: Store) -> None:
    where = where.format(folder=store.url)
    before = sorted(Path(store.url).rglob("*"))
    for route in ("/api/figures", "/api/facets", "/api/scores"):
        answer = client(gallery).get(route, params={"where": where})
        assert answer.status_code == 400
        assert "root:" not in answer.text
    assert sorted(Path(store.url).rglob("*")) == before


def test_sql_of_the_page_may_ask_the_stores_tables(gallery: Gallery) -> None:
    where = "sample_id IN (SELECT sample_id FROM concepts WHERE lemma = 'sofa') AND key LIKE 'train/%'"
    found = client(gallery).get("/api/figures", params={"where": where}).json()
    assert [figure["key"] for figure in found["figures"]] == ["train/x?id=1&side=2#3"]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", ""])
def test_without_a_token_this_machine_alone_is_answered(host: str, gallery: Gallery) -> None:
    assert client(gallery).get("/api/store", headers={"host": host}).status_code == 403


@pytest.mark.parametrize("host", ["127.0.0.1:8765", "localhost:1", "localhost", "[::1]:8765"])
def test_this_machine_has_several_names(host: str, gallery: Gallery) -> None:
    assert client(gallery).get("/api/store", headers={"host": host}).status_code == 200


def test_with_a_token_every_request_brings_it(gallery: Gallery) -> None:
    asked = client(gallery, "s3cret", "http://node17:8765")
    for path in ("/", "/app.js", "/api/store", "/image?id=x", "/?token=wrong", "/nowhere"):
        assert asked.get(path).status_code == 401
    assert asked.get("/api/store", headers={"authorization": "Bearer s3cret"}).status_code == 200
    assert asked.get("/api/store", headers={"cookie": "macco_token_8765=other"}).status_code == 401
    welcome = asked.get("/?sort=score&token=s3cret")
    assert (welcome.status_code, welcome.headers["location"]) == (303, "/?sort=score")
    assert {"HttpOnly", "SameSite=strict"} <= set(welcome.headers["set-cookie"].split("; "))
    assert asked.get("/api/store").status_code == 200  # by the cookie


@pytest.mark.parametrize("token", ["", " ", "two words", "tök€n", "a\nb", "\0"])
def test_a_token_that_is_none_opens_nothing(token: str, gallery: Gallery) -> None:
    with pytest.raises(UserError, match="a token is at least one character") as refused:
        serve(lambda key: store_app(gallery, threshold=0.3, token=key), host="0.0.0.0", port=0, token=token)
    assert len(str(refused.value).splitlines()) == 1
    asked = client(gallery, token, "http://node17:8765")
    given: list[dict[str, str]] = [
        {},
        {"authorization": "Bearer "},
        {"cookie": f"{cookie_of('node17:8765')}="},
    ]
    for headers in given if token == "" else ():
        for path in ("/", "/api/store", "/?token="):
            assert asked.get(path, headers=headers).status_code == 401


@pytest.mark.parametrize("token", ["a&b+c#d", "100%25", "x;y,z", '"quoted"', "a=b?c/d\\e"])
def test_the_address_that_is_said_lets_in(token: str, gallery: Gallery) -> None:
    said: list[str] = []

    class HeardError(Exception):
        pass

    def hear(text: str) -> None:
        said.append(text.split()[0])
        raise HeardError

    with pytest.raises(HeardError):
        serve(lambda key: store_app(gallery, threshold=0.3), host="127.0.0.1", port=0, token=token, say=hear)
    asked = client(gallery, token, said[0].partition("?")[0])
    assert asked.get(said[0]).status_code == 303
    assert asked.get("/api/store").status_code == 200
    assert asked.get("/api/store", headers={"authorization": f"Bearer {token}"}).status_code == 200


def test_servers_at_several_ports_do_not_take_each_others_tokens(gallery: Gallery) -> None:
    first, second = (client(gallery, token, f"http://node17:{port}") for token, port in (("a", 1), ("b", 2)))
    first.get("/?token=a")
    second.cookies = first.cookies  # a browser's, which knows no ports
    second.get("/?token=b")
    for asked in (first, second):
        assert asked.get("/api/store").status_code == 200


@pytest.mark.parametrize(
    "path", ["//evil.example/", "/%2Fevil.example", "///evil.example", "/%5Cevil.example"]
)
def test_the_token_leads_to_no_other_host(path: str, gallery: Gallery) -> None:
    welcome = client(gallery, "s3cret").get(f"{HERE}{path}?token=s3cret")
    assert welcome.status_code == 303
    assert urljoin(f"{HERE}/", welcome.headers["location"].replace("\\", "/")).startswith(f"{HERE}/")


@pytest.mark.parametrize("cookie", ["a(b=c", "=", ";;", "x", '"', "macco_token_8765"])
def test_cookies_of_others_are_passed_over(cookie: str, gallery: Gallery) -> None:
    asked = client(gallery, "s3cret").get(
        "/api/store", headers={"cookie": f"{cookie}; macco_token_8765=s3cret"}
    )
    assert asked.status_code == 200


def test_changes_come_from_the_page_itself(tmp_path: Path) -> None:
    gallery = Gallery(hostile_store(tmp_path))
    gallery.fill()
    asked, name = client(gallery), "d/00000/lost"
    body = json.dumps({"id": name, "tag": "bad", "on": True})
    json_type = {"content-type": "application/json"}
    assert asked.post("/api/tags", content=body, headers={"content-type": "text/plain"}).status_code == 415
    elsewhere = json_type | {"origin": "http://evil.example"}
    assert asked.post("/api/tags", content=body, headers=elsewhere).status_code == 403
    mistaken = (
        {"id": 1, "tag": "x", "on": True},
        {"id": name, "tag": "", "on": True},
        {"id": name, "tag": "x"},
    )
    for wrong in ("{}", "[]", "no", "[" * 100_000, *map(json.dumps, mistaken)):
        assert asked.post("/api/tags", content=wrong, headers=json_type).status_code == 400
    assert not (tmp_path / "store" / "tags.parquet").exists()
    assert asked.post("/api/tags", content=body, headers=json_type | {"origin": HERE}).json() == {
        "tags": ["bad"]
    }
    assert asked.get("/api/tags").status_code == 405


def test_a_page_loads_nothing_from_elsewhere(gallery: Gallery) -> None:
    for path in ("/", "/api/store", "/app.js", "/nowhere"):
        headers = client(gallery).get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers


def test_a_written_page_holds_hostile_text_as_text(store: Store, tmp_path: Path) -> None:
    page = tmp_path / "view.html"
    assert write_page(store, page, where="true", limit=9, threshold=0.3) == len(HOSTILE) + 1
    assert [figure["key"] for figure in held(page)] == sorted([*HOSTILE, "lost"])
    text = page.read_text()
    assert text.count("</script>") == whole({}, []).count("</script>")
    assert "<img src=x" not in text
    assert [bool(figure["src"]) for figure in held(page)] == [
        figure["key"] != "lost" for figure in held(page)
    ]


def test_a_port_that_is_taken_is_a_users_mistake(gallery: Gallery) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port}.*--port"):
            serve(lambda token: store_app(gallery, threshold=0.3), host="127.0.0.1", port=port)


@pytest.mark.parametrize("query", ["at=x", "limit=1.5", "seed=?", "score=nan", "score=1e999"])
def test_numbers_of_an_address_are_numbers(query: str, gallery: Gallery) -> None:
    answer = client(gallery).get(f"/api/figures?{query}")
    assert answer.status_code == 400
    assert query.partition("=")[0] in answer.json()["error"]


def test_a_place_outside_the_store_is_its_nearest(gallery: Gallery) -> None:
    found = client(gallery).get("/api/figures", params={"at": -5, "limit": 10**9}).json()
    assert (found["at"], len(found["figures"])) == (0, len(HOSTILE) + 1)
    assert client(gallery).get("/api/figures", params={"at": 10**12}).json()["figures"] == []


# Conditions that take years, wherever they are looked at: alone, or beside columns of concepts and of boxes.
LONG = "(SELECT count(*) FROM range(1000000000000)) > 0"
ENDLESS = [
    LONG,
    f"{LONG} AND lemma = 'red'",
    f"{LONG} AND score > 0.5",
    f"lemma = 'red' AND score > 0.5 AND {LONG}",
]


@pytest.mark.parametrize("where", ENDLESS)
def test_no_condition_passes_the_limit(where: str, gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "SECONDS", 0.5)
    with pytest.raises(UserError, match=r"more than 0\.5 s"):
        gallery.facets(Filter(where=where))


def test_a_slow_question_holds_up_no_other_and_is_ended(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = Gallery(store)
    gallery.fill()
    said, begun = list[str](), list[str]()
    rows = questions.rows

    def heard(connection: Any, where: str) -> str:
        begun.append(where)
        return rows(connection, where)

    monkeypatch.setattr(questions, "rows", heard)

    def ask(where: str) -> None:
        try:
            gallery.figures(Filter(where=where))
        except UserError as error:
            said.append(str(error))

    slow = [threading.Thread(target=ask, args=(where,), daemon=True) for where in (LONG, LONG, ENDLESS[1])]
    for thread in slow:
        thread.start()
    while {*begun} != {LONG, ENDLESS[1]}:
        slow[0].join(0.01)
    answers: list[Any] = []

    def others() -> None:
        answers.append(gallery.facets(Filter(kind=("object",)))["total"])
        answers.append(gallery.scores(Filter(concept=("object:sofa",)))["images"][0])
        answers.append(gallery.figures(Filter(where="lemma = 'sofa'"))["total"])
        answers.append(gallery.figure(gallery.figures(Filter())["figures"][0]["id"])["key"])

    other = threading.Thread(target=others, daemon=True)
    other.start()
    other.join(60)
    assert len(answers) == 4
    assert all(thread.is_alive() for thread in slow)
    assert said == []
    assert begun.count(LONG) == 1  # two who ask the same wait for one answer
    gallery.end()
    for thread in slow:
        thread.join(60)
    assert said == ["the server is ending"] * 3
    gallery.close()


def test_an_answer_is_made_once_and_a_failure_is_not_kept() -> None:
    kept, made, go = Kept(4), list[str](), threading.Event()

    def make() -> int:
        go.wait(60)
        made.append("once")
        if len(made) == 1:
            raise UserError("not yet")
        return 7

    found: list[Any] = []

    def ask() -> None:
        try:
            found.append(kept("key", make))
        except UserError as error:
            found.append(str(error))

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    go.set()
    for thread in threads:
        thread.join(60)
    assert found.count("not yet") >= 1
    assert kept("key", make) == kept("key", make) == 7
    assert len(made) == 2


@pytest.mark.processes
def test_one_ctrl_c_ends_a_server_at_work(tmp_path: Path) -> None:
    url = hostile_store(tmp_path).url
    command = [sys.executable, "-m", "macco.preprocess", "serve", url, "--port", "0"]
    # A shell's background job ignores ctrl-c, and so would what it starts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, before)
    assert server.stdout is not None
    address = server.stdout.readline().split()[0]
    answers: list[int] = []

    def ask(where: str) -> None:
        try:
            answers.append(
                httpx.get(f"{address}api/figures", params={"where": where}, timeout=300).status_code
            )
        except httpx.HTTPError:
            answers.append(0)

    asking = [threading.Thread(target=ask, args=(where,), daemon=True) for where in ENDLESS]
    for thread in asking:
        thread.start()
    while httpx.get(f"{address}api/facets", timeout=60).status_code != 200:
        pass
    server.send_signal(signal.SIGINT)
    try:
        assert server.wait(60) == 0
    finally:
        server.kill()
        server.stdout.close()
    for thread in asking:
        thread.join(60)
    assert len(answers) == len(ENDLESS)
    assert 200 not in answers


def test_a_store_that_is_not_whole_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = hostile_store(tmp_path)
    file = next(Path(store.url, "boxes").glob("[!._]*.parquet"))
    file.write_bytes(file.read_bytes()[:500])
    gallery = Gallery(Store.open(store.url))
    gallery.start()
    asked = client(gallery)
    for route in ("/api/store", "/api/facets"):
        assert "00000: boxes/" in asked.get(route).json()["failed"]
    with pytest.raises(ZeroDivisionError):
        serve(
            lambda key: store_app(gallery, threshold=0.3),
            host="127.0.0.1",
            port=0,
            gallery=gallery,
            say=lambda _: 1 / 0,
        )
    assert "1 of its shards is not whole (00000: boxes/" in capsys.readouterr().err
    gallery.close()


def test_tags_that_cannot_be_read_are_a_users_mistake(tmp_path: Path) -> None:
    store = hostile_store(tmp_path)
    for content in (b"", b"no parquet", b"PAR1" + bytes(40) + b"PAR1"):
        Path(store.url, "tags.parquet").write_bytes(content)
        asks: list[Callable[[], Any]] = [
            lambda: Gallery(store),
            lambda: write_page(store, tmp_path / "v.html", where="true", limit=9, threshold=0.3),
        ]
        for ask in asks:
            with pytest.raises(UserError, match=r"tags\.parquet cannot be read: .*move it away"):
                ask()
