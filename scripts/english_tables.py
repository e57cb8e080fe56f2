"""What needs no training: parts of speech and features of Penn tags, and the tables of the rule lemmatizer."""

import re
from typing import Any

from caption_words import table
from spacy.language import Language
from spacy.lookups import Lookups

# "star" would be "starring": a form in -aring is of "stare".
CLOSED_SYLLABLE = re.compile(r"[^aeiou]*[aeiou][^aeiouwxy]")
VERB_TAGS = ["VB", "VBD", "VBG", "VBN", "VBP", "VBZ"]
BE = ["be", "am", "is", "are", "was", "were", "been", "being", "'s", "'m", "'re"]
# Penn tag: universal part of speech, then features.
TAG_MAP = {
    **dict.fromkeys([".", ",", "-LRB-", "-RRB-", "``", '""', "''", ":", "HYPH", "NFP"], "PUNCT"),
    **dict.fromkeys(["$", "#", "SYM"], "SYM"),
    **dict.fromkeys(["FW", "LS", "ADD", "GW", "XX"], "X"),
    **dict.fromkeys(["DT", "PDT"], "DET"),
    **dict.fromkeys(["IN", "RP"], "ADP"),
    "AFX": "ADJ Hyph=Yes",
    "CC": "CCONJ",
    "CD": "NUM NumType=Card",
    "EX": "PRON",
    "JJ": "ADJ Degree=Pos",
    "JJR": "ADJ Degree=Cmp",
    "JJS": "ADJ Degree=Sup",
    "MD": "AUX VerbForm=Fin|VerbType=Mod",
    "NN": "NOUN Number=Sing",
    "NNS": "NOUN Number=Plur",
    "NNP": "PROPN Number=Sing",
    "NNPS": "PROPN Number=Plur",
    "POS": "PART Poss=Yes",
    "PRP": "PRON PronType=Prs",
    "PRP$": "PRON Poss=Yes|PronType=Prs",
    "RB": "ADV Degree=Pos",
    "RBR": "ADV Degree=Cmp",
    "RBS": "ADV Degree=Sup",
    "TO": "PART",
    "UH": "INTJ",
    "VB": "VERB VerbForm=Inf",
    "VBD": "VERB Tense=Past|VerbForm=Fin",
    "VBG": "VERB Aspect=Prog|Tense=Pres|VerbForm=Part",
    "VBN": "VERB Aspect=Perf|Tense=Past|VerbForm=Part",
    "VBP": "VERB Tense=Pres|VerbForm=Fin",
    "VBZ": "VERB Number=Sing|Person=3|Tense=Pres|VerbForm=Fin",
    "WDT": "PRON PronType=Rel",
    "WP": "PRON PronType=Rel",
    "WP$": "PRON Poss=Yes|PronType=Rel",
    "WRB": "SCONJ",
    "_SP": "SPACE",
}
NOMINAL = ["nsubj", "nsubjpass", "dobj", "pobj", "attr", "conj", "ROOT"]


def add_rules(nlp: Language) -> None:
    """Append the attribute ruler and the lemmatizer."""
    ruler = nlp.add_pipe("attribute_ruler")
    tag_map = {}
    for tag, value in TAG_MAP.items():
        pos, _, morph = value.partition(" ")
        tag_map[tag] = {"POS": pos, "MORPH": morph}
    ruler.load_from_tag_map(tag_map)
    ruler.add([[{"TAG": {"IN": VERB_TAGS}, "DEP": {"IN": ["aux", "auxpass"]}}]], {"POS": "AUX"})
    ruler.add([[{"TAG": {"IN": VERB_TAGS}, "LOWER": {"IN": BE}}]], {"POS": "AUX"})
    ruler.add([[{"TAG": "DT", "DEP": {"IN": NOMINAL}}]], {"POS": "PRON"})
    ruler.add([[{"TAG": "IN", "DEP": "mark"}]], {"POS": "SCONJ"})
    lemmatizer = nlp.add_pipe("lemmatizer", config={"mode": "rule"})
    lemmatizer.initialize(lookups=lemma_tables())


def lemma_tables() -> Lookups:
    """Rules, exceptions and index of spacy-lookups-data.

    Where the rules find several lemmas of a form, the wrong ones leave the index: the lemmatizer takes what its
    last rule finds, and an exception does not help against a lemma that the rules find too.
    """
    rules, exceptions, index = (table(f"lemma_{name}") for name in ("rules", "exc", "index"))
    for pos in ("verb", "noun"):
        exceptions[pos] = {
            form: [lemma for lemma in lemmas if lemma.islower() and "_" not in lemma] or [form]
            for form, lemmas in exceptions[pos].items()
        } | {form: [form] for form in UNCHANGED if pos == "noun"}
        wrong: set[str] = set()
        right: set[str] = set()
        found = lemmas_of(rules[pos], frozenset(index[pos]))
        for form, candidates in found.items():
            if len(candidates) > 1:
                right.add(CORRECTIONS.get(form) or exceptions[pos].get(form, candidates)[0])
                wrong.update(candidates)
        wrong -= right
        index[pos] = [word for word in index[pos] if word not in wrong]
        for form, candidates in found.items():
            if len(candidates) == 1 and candidates[0] in wrong:
                exceptions[pos].setdefault(form, candidates)
    lookups = Lookups()
    lookups.add_table("lemma_rules", rules)
    lookups.add_table("lemma_exc", {**exceptions, "aux": AUXILIARIES})
    lookups.add_table("lemma_index", {pos: [w for w in words if w.isalpha()] for pos, words in index.items()})
    return lookups


def lemmas_of(rules: list[list[str]], index: frozenset[str]) -> dict[str, list[str]]:
    """The lemmas that the rules find for a form, likely ones first: "riding" is of "ride", not of "rid"."""
    frequency = table("lexeme_prob")
    found = {}
    for form in frequency:
        if not (form.isalpha() and form.islower() and form.endswith(("s", "ed", "ing"))):
            continue
        candidates = {form.removesuffix(old) + new for old, new in rules if form.endswith(old)} & index
        if candidates:
            found[form] = sorted(candidates, key=lambda lemma: (-_likelihood(form, lemma, frequency), lemma))
    return found


def _likelihood(form: str, lemma: str, frequency: dict[str, float]) -> float:
    """Log frequency of the lemma, less a penalty if it would not be spelt like that in this form."""
    doubles = CLOSED_SYLLABLE.fullmatch(lemma) and form in {lemma + "ed", lemma + "ing"}
    needs_no_e = form == lemma + "es" and not lemma.endswith(("s", "x", "z", "ch", "sh", "o"))
    same_s = lemma.endswith("s") and form == lemma + "es" and len(lemma) < 5
    return frequency.get(lemma, -30.0) - 20.0 * bool(doubles or needs_no_e) - 5.0 * same_s


CORRECTIONS = {"bathing": "bathe", "bathed": "bathe", "lenses": "lens", "masses": "mass"}
# Plural nouns that name one thing, or have no singular in use.
UNCHANGED = ["people", "graffiti", "pants", "jeans", "shorts", "sunglasses", "scissors", "goggles", "woods"]
AUXILIARIES: dict[str, Any] = {
    **{form: ["be"] for form in BE if form != "be"},
    **{form: ["have"] for form in ("has", "had", "having", "'ve")},
    **{form: ["do"] for form in ("does", "did", "done", "doing")},
    **{form: ["get"] for form in ("gets", "got", "getting", "gotten")},
    "ca": ["can"],
    "wo": ["will"],
    "'ll": ["will"],
    "'d": ["would"],
    "n't": ["not"],
}
