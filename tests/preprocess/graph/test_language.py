"""The embedded English pipeline and its loader."""

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from macco.pipeline.errors import UserError
from macco.preprocess.graph.language import (
    EMBEDDED,
    MODELS,
    check_pipeline,
    load_pipeline,
    pipeline_fingerprint,
)
from tests.support import DATA

if TYPE_CHECKING:
    from spacy.language import Language

MENTIONS = DATA / "caption_mentions.jsonl"


@pytest.fixture(scope="module")
def nlp() -> "Language":
    return load_pipeline()


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        (
            "A man with a brown backpack is pushing a black bicycle.",
            "man/nsubj/NOUN pushing/ROOT/VERB bicycle/dobj/NOUN",
        ),
        (
            "Two dogs running through the grass",
            "Two/nummod/NUM dogs/ROOT/NOUN running/acl/VERB grass/pobj/NOUN",
        ),
        ("a red moped parked on the street", "moped/ROOT/NOUN parked/acl/VERB street/pobj/NOUN"),
        ("The dog is black.", "dog/nsubj/NOUN is/ROOT/AUX black/acomp/ADJ"),
        ("The dog is on the table.", "dog/nsubj/NOUN is/ROOT/AUX on/prep/ADP table/pobj/NOUN"),
        ("A girl picks the ball up.", "picks/ROOT/VERB ball/dobj/NOUN up/prt/ADP"),
        (
            "A piano is played by a woman",
            "piano/nsubjpass/NOUN played/ROOT/VERB by/agent/ADP woman/pobj/NOUN",
        ),
        ("a cat in front of a blue car", "cat/ROOT/NOUN front/pobj/NOUN of/prep/ADP car/pobj/NOUN"),
        ("A dog sits to the left of a tree", "sits/ROOT/VERB left/pobj/NOUN of/prep/ADP tree/pobj/NOUN"),
        ("The dog is next to a sofa.", "next/advmod/ADV to/prep/ADP sofa/pobj/NOUN"),
        (
            "A man who is holding an umbrella",
            "man/ROOT/NOUN who/nsubj/PRON holding/relcl/VERB umbrella/dobj/NOUN",
        ),
        (
            "a cup, a fork and a knife on a table",
            "cup/ROOT/NOUN fork/conj/NOUN knife/conj/NOUN table/pobj/NOUN",
        ),
        ("There is a truck behind the house", "There/expl/PRON is/ROOT/AUX truck/attr/NOUN house/pobj/NOUN"),
        ("An ice cream truck", "ice/compound/NOUN cream/compound/NOUN truck/ROOT/NOUN"),
    ],
)
def test_tricky_captions(nlp: "Language", caption: str, expected: str) -> None:
    found = [f"{token.text}/{token.dep_}/{token.pos_}" for token in nlp(caption)]
    assert [word for word in found if word in expected.split()] == expected.split()


@pytest.mark.parametrize(
    ("word", "lemma"),
    [("sitting", "sit"), ("dogs", "dog"), ("women", "woman"), ("riding", "ride"), ("is", "be")],
)
def test_lemmas(nlp: "Language", word: str, lemma: str) -> None:
    doc = nlp("Two women and three dogs are sitting while a child is riding a bike.")
    assert {token.text: token.lemma_ for token in doc}[word] == lemma


def test_noun_chunks_agree_with_annotated_mentions(nlp: "Language") -> None:
    rows = [json.loads(line) for line in MENTIONS.read_text(encoding="utf8").splitlines()]
    total = exact = last = 0
    for row, doc in zip(rows, nlp.pipe(row["caption"] for row in rows), strict=True):
        chunks = {(chunk.start_char, chunk.end_char) for chunk in doc.noun_chunks}
        total += len(row["mentions"])
        exact += sum(tuple(span) in chunks for span in row["mentions"])
        last += sum(end in {stop for _, stop in chunks} for _, end in row["mentions"])
    assert total > 750
    assert exact / total > 0.975
    assert last / total > 0.98


def test_folder_is_small() -> None:
    assert sum(path.stat().st_size for path in (MODELS / EMBEDDED).rglob("*") if path.is_file()) < 8_000_000


def test_fingerprint_follows_the_content(nlp: "Language", tmp_path: Path) -> None:
    assert pipeline_fingerprint(nlp) == pipeline_fingerprint(EMBEDDED)
    copy = tmp_path / "copy"
    nlp.to_disk(copy)
    before = pipeline_fingerprint(str(copy))
    (copy / "parser" / "model").write_bytes(b"other")
    assert pipeline_fingerprint(str(copy)) != before


def test_a_missing_pipeline_names_the_command() -> None:
    for call in (check_pipeline, load_pipeline, pipeline_fingerprint):
        with pytest.raises(UserError, match=r"python -m spacy download en_core_web_xx$"):
            call("en_core_web_xx")


def test_a_pipeline_without_a_parser_is_refused(tmp_path: Path) -> None:
    import spacy

    spacy.blank("en").to_disk(tmp_path)
    for call in (check_pipeline, load_pipeline):
        with pytest.raises(UserError, match="no English pipeline with a parser"):
            call(str(tmp_path))


def test_a_pipeline_without_lemmas_is_refused(tmp_path: Path) -> None:
    import spacy

    spacy.load(MODELS / EMBEDDED, exclude=["lemmatizer"]).to_disk(tmp_path)
    check_pipeline(str(tmp_path))
    with pytest.raises(UserError, match="gives no lemmas"):
        load_pipeline(str(tmp_path))


@pytest.mark.processes
def test_checking_does_not_import_spacy_or_torch() -> None:
    code = (
        "import sys; from macco.preprocess.graph.language import check_pipeline; check_pipeline(); "
        "sys.exit(bool({'spacy', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
