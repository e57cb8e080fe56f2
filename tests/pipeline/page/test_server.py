"""Who is answered, and what no request can reach."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image
from starlette.testclient import TestClient

from macco.pipeline.errors import UserError
from macco.pipeline.page.app import store_app
from macco.pipeline.page.gallery import Gallery
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
    assert asked.get("/api/store", headers={"cookie": "macco_token=other"}).status_code == 401
    welcome = asked.get("/?sort=score&token=s3cret")
    assert (welcome.status_code, welcome.headers["location"]) == (303, "/?sort=score")
    assert {"HttpOnly", "SameSite=strict"} <= set(welcome.headers["set-cookie"].split("; "))
    assert asked.get("/api/store").status_code == 200  # by the cookie


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
    for wrong in ("{}", "[]", "no", *map(json.dumps, mistaken)):
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
