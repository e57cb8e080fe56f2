"""Captions that cannot be parsed, and why."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from macco.preprocess.graph.refusal import caption_status


@pytest.mark.parametrize(
    ("caption", "status"),
    [
        (None, "missing_caption"),
        ("", "missing_caption"),
        (" \n\t\u00a0", "missing_caption"),
        ("x" * 1001, "caption_too_long"),
        ("собака на диване", "not_english"),
        ("一只狗 dog", None),
        ("一只黑色的狗 dog", "not_english"),
        ("a dog 🐶🐶🐶 at 5 °C", None),
        ("un café naïve à Zürich, ﬁn", None),
        ("Ａ ｄｏｇ", None),
        ("half of a pair \ud83d", "bad_encoding"),
        ("x" * 1000, None),
    ],
)
def test_status(caption: str | None, status: str | None) -> None:
    found = caption_status(caption)
    assert (found and found[0]) == status


def test_limit_is_said() -> None:
    found = caption_status("a dog", max_chars=4)
    assert found is not None
    assert "5" in found[1]
    assert "4" in found[1]


@given(st.text())
def test_any_string_has_an_answer(caption: str) -> None:
    found = caption_status(caption)
    assert found is None or (found[0] and found[1])
