"""TSV and CSV: no line is lost, and none is lost in another."""

import csv
import io
from pathlib import Path

import fsspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from macco.pipeline.errors import UserError
from macco.preprocess.sources import SourceImage, delimited, plan
from tests.support.packed import read, statuses

HEAD_TSV = b"filepath\ttitle\n"
HEAD_CSV = b"filepath,title\n"


def of(folder: Path, name: str, data: bytes, **options: object) -> list[SourceImage]:
    """What a table of images a.jpg to e.jpg yields."""
    for letter in "abcde":
        (folder / f"{letter}.jpg").write_bytes(letter.encode())
    (folder / name).write_bytes(data)
    return read(f"{folder}/{name}", **options)


def told(items: list[SourceImage]) -> list[tuple[str, str | None]]:
    """Each row's key, and its caption or its status where it has none."""
    return [
        (item.key, caption if status == "ok" else status)
        for item in items
        for caption, status, _ in item.rows()
    ]


@pytest.mark.parametrize(
    ("name", "data", "rows"),
    [
        # A quote is a character of a TSV.
        ("x.tsv", HEAD_TSV + b'a.jpg\t"Hello" says a dog\nb.jpg\t"open\nc.jpg\t12" tall\nd.jpg\t"whole"\n',
         [("a.jpg", '"Hello" says a dog'), ("b.jpg", '"open'), ("c.jpg", '12" tall'), ("d.jpg", '"whole"')]),
        ("x.tsv", HEAD_TSV + b'"a.jpg\tx\nb.jpg\ty', [('"a.jpg', "missing_image"), ("b.jpg", "y")]),
        # Whoever quotes the header quotes the fields.
        ("x.tsv", b'"filepath"\t"title"\n"a.jpg"\t"two\twords ""so"""\n', [("a.jpg", 'two\twords "so"')]),
        # In a CSV quotes hold a field together, newlines and all.
        ("x.csv", HEAD_CSV + b'a.jpg,"a, dog"\nb.jpg,"two\nlines, too"\nc.jpg,"say ""so"""\n',
         [("a.jpg", "a, dog"), ("b.jpg", "two\nlines, too"), ("c.jpg", 'say "so"')]),
        # Those that do not come out are characters.
        ("x.csv", HEAD_CSV + b'a.jpg,"open\nb.jpg,x\nc.jpg,12" tall\n',
         [("a.jpg", '"open'), ("b.jpg", "x"), ("c.jpg", '12" tall')]),
        ("x.csv", HEAD_CSV + b'a.jpg,"open\nb.jpg,x\nc.jpg,closed"\nd.jpg,z\n',
         [("a.jpg", '"open'), ("b.jpg", "x"), ("c.jpg", 'closed"'), ("d.jpg", "z")]),
        ("x.csv", HEAD_CSV + b'a.jpg,"open\nb.jpg,"x"\nc.jpg,y',
         [("a.jpg", '"open'), ("b.jpg", "x"), ("c.jpg", "y")]),
        ("x.csv", HEAD_CSV + b'a.jpg,"Hello" he says\nb.jpg,"a, b\nc.jpg,y',
         [("a.jpg", '"Hello" he says'), ("c.jpg", "y"), ("line-3", "bad_row")]),
        ("x.csv", b'title,filepath\n"open,a.jpg\nx,b.jpg\n"closed",c.jpg\n',
         [("a.jpg", '"open'), ("b.jpg", "x"), ("c.jpg", "closed")]),
        ("x.csv", b'title,filepath\n"two\nlines, too",a.jpg\n"one, open,b.jpg\nx",c.jpg\n"and ""d.jpg""\n",d.jpg\n',
         [("a.jpg", "two\nlines, too"), ("c.jpg", 'x"'), ("d.jpg", 'and "d.jpg"'), ("line-3", "bad_row")]),
        # Separators
        ("x.csv", b"filepath;title\na.jpg;a, dog\n", [("a.jpg", "a, dog")]),
        ("x.csv", b'filepath|title\na.jpg|"a|dog"\n', [("a.jpg", "a|dog")]),
        ("x.csv", HEAD_TSV + b'a.jpg\t"a", dog\n', [("a.jpg", '"a", dog')]),
        ("x.tsv", HEAD_CSV + b'a.jpg,"a, dog"\n', [("a.jpg", "a, dog")]),
        ("table", HEAD_TSV + b"a.jpg\tx\n", [("a.jpg", "x")]),
        ("x.txt", HEAD_CSV + b"a.jpg,x\n", [("a.jpg", "x")]),
        # Bytes
        ("x.csv", b"\xef\xbb\xbf" + HEAD_CSV + b'a.jpg,"x"\n', [("a.jpg", "x")]),
        ("x.csv", b'filepath,title\r\na.jpg,"x"\r\n\r\nb.jpg,"two\r\nlines"\r\n',
         [("a.jpg", "x"), ("b.jpg", "two\r\nlines")]),
        ("x.tsv", b"filepath\ttitle\r\na.jpg\tx\r\n\r\nb.jpg\ty", [("a.jpg", "x"), ("b.jpg", "y")]),
        ("x.tsv", b"filepath\ttitle\ra.jpg\tx\rb.jpg\ty\r", [("a.jpg", "x"), ("b.jpg", "y")]),
        ("x.tsv", HEAD_TSV + b"a.jpg\tx\ry\nb.jpg\tz\n", [("a.jpg", "x\ry"), ("b.jpg", "z")]),
        ("x.csv", HEAD_CSV + b'a.jpg,caf\xe9\nb.jpg,"caf\xe9, x"\nc.jpg,y\n',
         [("a.jpg", "bad_encoding"), ("b.jpg", "bad_encoding"), ("c.jpg", "y")]),
        ("x.tsv", HEAD_TSV + b"a.jpg\tnul\0nul\nb\0.jpg\ty\n",
         [("a.jpg", "nul\0nul"), ("b\0.jpg", "unreadable_image")]),
        ("x.csv", HEAD_CSV + b'a.jpg,"nul\0, nul"\n', [("a.jpg", "nul\0, nul")]),
        ("x.tsv", HEAD_TSV + "a.jpg\tx\u2028y\x0bz\x1c\x85w\n".encode(), [("a.jpg", "x\u2028y\x0bz\x1c\x85w")]),
    ],
)  # fmt: skip
def test_lines(tmp_path: Path, name: str, data: bytes, rows: list[tuple[str, str]]) -> None:
    assert told(of(tmp_path, name, data)) == rows


@pytest.mark.parametrize("name", ["x.csv", "x.tsv"])
@pytest.mark.parametrize("quote", [b"", b'"'])
def test_long_fields(tmp_path: Path, name: str, quote: bytes) -> None:
    text = b"x" * 20_000_000  # more than Arrow reads at a time
    quote = quote if name == "x.csv" else b""
    separator = b"," if name == "x.csv" else b"\t"
    data = b"".join(
        [b"filepath", separator, b"title\na.jpg", separator, quote, text, quote, b"\nb.jpg", separator, b"y"]
    )
    assert told(of(tmp_path, name, data)) == [("a.jpg", text.decode()), ("b.jpg", "y")]


def test_format_csv_reads_a_tsv_as_pandas_writes_it(tmp_path: Path) -> None:
    data = HEAD_TSV + b'a.jpg\t"say ""so"""\nb.jpg\tplain\n'
    assert told(of(tmp_path, "x.tsv", data, format="csv")) == [("a.jpg", 'say "so"'), ("b.jpg", "plain")]


@pytest.mark.parametrize(
    ("name", "data", "options", "words"),
    [
        ("x.csv", b"Filepath,titel\na.jpg,x\n", {}, "Is it --image-field Filepath?"),
        ("x.csv", b"filepath,titel\na.jpg,x\n", {}, "Is it --caption-field titel?"),
        ("x.csv", b"filepath, title\na.jpg,x\n", {}, "Is it --caption-field ' title'?"),
        ("x.tsv", b"filepath\tcaption_en\n", {"caption_field": "captions_en"}, "--caption-field caption_en?"),
        ("x.tsv", b"a.jpg\ta dog\nb.jpg\ta cat\n", {}, "looks like a row: put one with the columns' names"),
        ("x.csv", b"a;b;c\n1;2;3\n", {}, "name one with --image-field: a, b, c"),
        ("x.tsv", "filepath\ttitle".encode("utf-16"), {}, "it is UTF-16; save it as UTF-8"),
    ],
)
def test_mistakes_name_the_cause_and_the_option(
    tmp_path: Path, name: str, data: bytes, options: dict[str, object], words: str
) -> None:
    with pytest.raises(UserError) as caught:
        of(tmp_path, name, data, **options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


# A field as a program might write it. A text that looks like a row of the table is told apart by its image's name.
texts = st.text(st.sampled_from('ab"",;\t\n\r |\'é\u2028\0'), max_size=8)


def memory(data: bytes, name: str) -> str:
    """A file of its own for each table: a process reads one once."""
    name = f"delimited/{abs(hash(data))}/{name}"
    fsspec.filesystem("memory").pipe(f"/{name}", data)
    return f"memory://{name}"


@settings(max_examples=300, deadline=None)
@given(
    st.lists(texts, max_size=12),
    st.sampled_from(",;|"),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.permutations(["filepath", "title", "other"]),
)
@example(['"'], ",", "\n", False, ["filepath", "title", "other"])
@example(["a\nb"], ",", "\n", False, ["title", "other", "filepath"])
def test_what_csv_writes_comes_back(
    captions: list[str], separator: str, end: str, everything: bool, columns: list[str]
) -> None:
    out = io.StringIO()
    quoting = csv.QUOTE_ALL if everything else csv.QUOTE_MINIMAL
    writer = csv.writer(out, delimiter=separator, lineterminator=end, quoting=quoting)
    writer.writerow(columns)
    for number, text in enumerate(captions):
        fields = {"filepath": f"{number}.jpg", "title": text, "other": "x"}
        writer.writerow([fields[column] for column in columns])
    found = read(memory(out.getvalue().encode(), "x.csv"))
    assert [item.key for item in found] == [f"{number}.jpg" for number in range(len(captions))]
    for item, text in zip(found, captions, strict=True):
        (caption,) = item.captions
        assert caption == text.strip() if text.strip() else not isinstance(caption, str)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.text(st.characters(exclude_characters="\t\n\r", exclude_categories=["Cs"])), max_size=12),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
)
@example(['"""Wow"" a dog"', '""', '"'], "\n", True)
def test_what_tabs_join_comes_back(captions: list[str], end: str, last: bool) -> None:
    lines = ["filepath\ttitle", *(f"{number}.jpg\t{text}" for number, text in enumerate(captions))]
    found = read(memory((end.join(lines) + (end if last else "")).encode(), "x.tsv"))
    assert [item.key for item in found] == [f"{number}.jpg" for number in range(len(captions))]
    for item, text in zip(found, captions, strict=True):
        (caption,) = item.captions
        # A byte order mark that begins a text is none of its letters.
        text = text.removeprefix("\ufeff").strip()
        assert caption == text if text else not isinstance(caption, str)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.text('ab",é', max_size=5)), max_size=12), st.booleans())
def test_no_line_is_lost_whatever_its_quotes(rows: list[tuple[str, str]], image_last: bool) -> None:
    if image_last:
        data = "title,filepath\n" + "".join(f"{text},{name}.jpg\n" for name, text in rows)
    else:
        data = "filepath,title\n" + "".join(f"{name}.jpg,{text}\n" for name, text in rows)
    assert len(statuses(read(memory(data.encode(), "y.csv")))) == len(rows)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_arrow_and_the_exact_way_read_the_same(body: bytes) -> None:
    data = HEAD_TSV + body.replace(b"\r", b"")
    quick = delimited._quickly(data, "\t", ["filepath", "title"])
    exact = delimited._exactly(data, "\t", False, ["filepath", "title"], ["filepath", "title"], "filepath")
    # Arrow is asked only for tables whose rows all fit.
    assert (quick is None) == bool(exact[1])
    assert quick is None or quick.to_pylist() == exact[0].to_pylist()


def test_plan_counts_as_read_yields(tmp_path: Path) -> None:
    data = HEAD_CSV + b'a.jpg,"open\nb.jpg,x,y\nc.jpg,z\n'
    items = of(tmp_path, "x.csv", data)
    shards = plan([f"{tmp_path}/x.csv"], rows_per_shard=2)
    assert [item for shard in shards for item in shard.read()] == items
    assert len(items) == 3
