"""Words of a TSV's row found in its caption: what a pattern finds, found without one."""

import re

from hypothesis import example, given
from hypothesis import strategies as st

from macco.preprocess.exchange.concepts import concepts_of, find

# Letters that are one another's other case, or become two or none, and what parts words.
TEXT = st.text(st.sampled_from(list("aAbB_ 1.-'éÉßẞſsSKkKİiıI²\n")), max_size=12)


def row(caption: str, objects: list[str]) -> dict[str, object]:
    names = ("relation_list", "attribute_list", "relation_phrase_list", "attribute_phrase_list")
    empty: list[object] = []
    lists = dict.fromkeys((*names, "relation_attribute_phrase_bbox_list"), empty)
    return lists | {"title": caption, "object_list": objects}


@given(TEXT, st.lists(TEXT, max_size=4))
@example("aa a aa", ["a", "A", "a"])
@example("a a a", ["a a", "a a"])
def test_objects_are_at_the_first_unused_places_in_either_case(caption: str, objects: list[str]) -> None:
    used, expected = set[int](), list[tuple[int, int]]()
    for word in objects:
        for match in re.finditer(rf"(?<!\w){re.escape(word)}(?!\w)", caption, re.IGNORECASE):
            if match.start() not in used:
                used.add(match.start())
                expected.append(match.span())
                break
    assert [tuple(concept.spans[0]) for concept in concepts_of(row(caption, objects))] == expected


@given(TEXT.filter(bool), TEXT)
def test_a_word_stands_by_itself_where_a_pattern_says(word: str, text: str) -> None:
    match = re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text)
    assert find(word, text, 0) == (-1 if match is None else match.start())
