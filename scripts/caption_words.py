"""Words of the caption grammar: hand-picked ones, WordNet's lists, and nouns found in unlabelled captions."""

import gzip
import json
import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any


def _sections() -> dict[str, list[str]]:
    text = Path(__file__).with_suffix(".txt").read_text(encoding="utf8")
    parts = re.split(r"^\[(\w+)\]$", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE), flags=re.MULTILINE)
    return {
        name: [" ".join(entry.split()) for entry in body.split(",") if entry.strip()]
        for name, body in zip(parts[1::2], parts[2::2], strict=True)
    }


WORDS = _sections()
DETERMINERS = frozenset(WORDS["determiners"])
AFTER_NOUN = frozenset(WORDS["after_noun"])
NO_NOUNS = frozenset(WORDS["no_nouns"])
NOT_RARE = frozenset(WORDS["not_rare"])
WORD = re.compile(r"[a-z]+|\.")
RARE_LOGP = -19.0


def table(name: str) -> dict[str, Any]:
    """A table of spacy-lookups-data, such as "lemma_index"."""
    packed = (files("spacy_lookups_data") / "data" / f"en_{name}.json.gz").read_bytes()
    return dict(json.loads(gzip.decompress(packed)))


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Words with sampling weights: nouns of captions, singular and plural, and unambiguous words of WordNet."""

    singular: Counter[str]
    plural: Counter[str]
    rare: Counter[str]
    adjectives: Counter[str]
    adverbs: Counter[str]


def collect(captions: Iterable[str]) -> Vocabulary:
    """A noun stands between a determiner and a preposition or verb at least twice ("a W of", "the W is")."""
    index = {key: frozenset(words) for key, words in table("lemma_index").items()}
    singular_of = {form: lemmas[0] for form, lemmas in table("lemma_exc")["noun"].items()}
    contexts: Counter[str] = Counter()
    for caption in captions:
        words = [*WORD.findall(caption.lower()), "."]
        for before, word, after in zip(words, words[1:], words[2:], strict=False):
            if before in DETERMINERS and after in AFTER_NOUN and len(word) > 2:
                contexts[word] += 1
    singular: Counter[str] = Counter()
    plural: Counter[str] = Counter()
    for word, count in contexts.items():
        if count < 2 or word in DETERMINERS | AFTER_NOUN | NO_NOUNS:
            continue
        weight = math.isqrt(100 * count)
        if word == "people" or _singular(word, singular_of) in index["noun"]:
            plural[word] = weight
        elif word in index["noun"]:
            singular[word] = weight
    weights = {
        word: round(1e4 * math.exp(logp / 3))
        for word, logp in table("lexeme_prob").items()
        if logp > RARE_LOGP
    }
    only = {
        pos: words.difference(*(index[other] for other in index if other != pos))
        for pos, words in index.items()
    }
    rare = [word for word in only["noun"] if len(word) > 3 and _plausible(word, singular_of)]
    adverbs = [word for word in only["adv"] if word.endswith("ly")]
    return Vocabulary(
        singular,
        plural,
        *(
            Counter({word: weights[word] for word in sorted(found) if word in weights and word.isalpha()})
            for found in (rare, only["adj"] - NOT_RARE, adverbs)
        ),
    )


def plural_of(noun: str) -> str:
    """The plural, regular but for men and people."""
    if noun.endswith(("man", "person")):
        return noun.removesuffix("man") + "men" if noun.endswith("man") else "people"
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


def verb_forms(entry: str) -> dict[str, str]:
    """Penn tag to form, of "lemma", "lemma/VBN" or "lemma/VBN/VBG"."""
    lemma, *irregular = entry.split("/")
    stem = lemma.removesuffix("e")
    regular = lemma[:-1] + "ied" if lemma.endswith("y") and lemma[-2] not in "aeiou" else stem + "ed"
    past = irregular[0] if irregular and not irregular[0].endswith("ing") else regular
    progressive = irregular[-1] if irregular and irregular[-1].endswith("ing") else stem + "ing"
    return {"VB": lemma, "VBP": lemma, "VBZ": plural_of(lemma), "VBN": past, "VBG": progressive}


def _singular(word: str, exceptions: dict[str, str]) -> str | None:
    if word in exceptions:
        return exceptions[word]
    for ending, new in (("ies", "y"), ("ches", "ch"), ("shes", "sh"), ("xes", "x"), ("s", "")):
        if word.endswith(ending) and not word.endswith("ss"):
            return word.removesuffix(ending) + new
    return None


def _plausible(word: str, exceptions: dict[str, str]) -> bool:
    """No plural, and none of the participles and function words that WordNet also lists as nouns."""
    return not word.endswith(("s", "ing", "ed")) and word not in exceptions and word not in NOT_RARE
