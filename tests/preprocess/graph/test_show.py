"""Graphs as people and programs see them."""

from macco.pipeline.schema import OBJECT, RELATION, Concept, Span
from macco.preprocess.graph.show import render, to_json
from tests.preprocess.graph.test_graph import find


def test_render_marks_words_under_the_caption() -> None:
    caption = "A man rides a red moped near a kayak"
    assert render(caption, find(caption)).split("\n") == [
        "A man rides a red moped near a kayak",
        "--===       ------=====      --=====  objects",
        "              ^^^                     attributes",
        "      ~~~~~             ~~~~          relations",
        "  moped: red",
        "  man -[rides]-> moped",
        "  man -[near]-> kayak",
        "",
    ]


def test_render_counts_the_cells_of_wide_characters() -> None:
    dog = Concept(OBJECT, (Span(3, 4),), "犬", Span(3, 4), "NOUN", "犬")
    lines = render("小さ\t犬!", [dog]).split("\n")
    assert lines[:2] == ["小さ 犬!", "     ==   objects"]


def test_render_of_no_concepts_says_so() -> None:
    assert "no concepts" in render("", [])


def test_json_has_one_entry_per_span() -> None:
    caption = "A man picks the ball up."
    value = to_json(caption, find(caption))
    assert value["caption"] == caption
    assert all(caption[entry["start"] : entry["end"]] == entry["text"] for entry in value["concepts"])
    picks, up = [entry for entry in value["concepts"] if entry["kind"] == RELATION]
    assert (picks["text"], picks["part"], up["text"], up["part"]) == ("picks", 0, "up", 1)
    assert picks["id"] == up["id"]
    objects = [entry["text"] for entry in value["concepts"] if entry["kind"] == OBJECT]
    assert (objects[picks["subject"]], objects[picks["object"]]) == ("A man", "the ball")


def test_what_is_denied_is_shown() -> None:
    caption = "no dog"
    dog = Concept(OBJECT, (Span(0, 6),), "dog", Span(3, 6), "NOUN", "dog", denied=True)
    assert "  denied: no dog" in render(caption, [dog]).split("\n")
    assert to_json(caption, [dog])["concepts"][0]["denied"] is True
