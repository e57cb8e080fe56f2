"""Universal Dependencies trees of English with the labels of spaCy's English pipelines (ClearNLP style).

`noun_chunks` and SceneGraphParser know prepositions with objects (prep, pobj), copulas as heads (attr,
acomp), agents and particles. The conversion is by rule: it is approximate, and a sentence that it breaks is
dropped.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from spacy.tokens import Doc
from spacy.vocab import Vocab


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


NEGATIONS = _set("not n't never n’t nt")
# Relations whose dependent, with a case marker, becomes the object of a preposition.
CASED = _set("obl nmod acl advcl xcomp conj root parataxis appos ccomp list obj nsubj orphan advmod dep")
# Of these, the preposition takes over the relation as well, since it is more than an attachment.
OUTER = _set("conj root parataxis list orphan")
# What hangs on a predicate in UD but on the verb "be" here.
CLAUSAL = _set("nsubj csubj aux expl discourse vocative parataxis advcl mark dislocated punct")
KEPT = _set("acl advcl amod appos cc ccomp compound conj det expl nummod parataxis punct dep")
DONE = _set("pobj prep pcomp attr acomp agent relcl")
SIMPLE = {
    "nsubj": "nsubj",
    "csubj": "csubj",
    "aux": "aux",
    "cop": "aux",
    "obj": "dobj",
    "iobj": "dative",
    "obl": "npadvmod",
    "vocative": "npadvmod",
    "discourse": "intj",
    "acl:relcl": "relcl",
    "advcl:relcl": "relcl",
    "nsubj:pass": "nsubjpass",
    "csubj:pass": "csubjpass",
    "aux:pass": "auxpass",
    "nmod:poss": "poss",
    "nmod:desc": "compound",
    "compound:prt": "prt",
    "det:predet": "predet",
    "cc:preconj": "preconj",
}


@dataclass(slots=True)
class Word:
    """A syntactic word: its place from 1 (0 is the root), head, label, and whether a space follows."""

    place: int
    form: str
    upos: str
    tag: str
    head: int
    label: str
    space: bool

    @property
    def base(self) -> str:
        """The label without its subtype."""
        return self.label.split(":")[0]

    @property
    def lower(self) -> str:
        return self.form.lower()


Tree = dict[int, Word]


def read_conllu(path: Path) -> Iterator[Tree]:
    """The sentences of a CoNLL-U file; empty nodes are skipped, contractions keep their spacing."""
    for block in path.read_text(encoding="utf8").split("\n\n"):
        tree: Tree = {}
        inside: dict[int, bool] = {}
        for line in block.splitlines():
            column = line.split("\t")
            if line.startswith("#") or len(column) < 10 or "." in column[0]:
                continue
            space = "SpaceAfter=No" not in column[9]
            if "-" in column[0]:
                first, last = map(int, column[0].split("-"))
                inside |= {place: place == last and space for place in range(first, last + 1)}
                continue
            place = int(column[0])
            tree[place] = Word(place, column[1], column[3], column[4], int(column[6]), column[7], space)
        for place, space in inside.items():
            tree[place].space = space
        if tree:
            yield tree


def convert(tree: Tree) -> bool:
    """Relabel and re-attach in place; False if the result is no tree with one root."""
    for step in (_head_names_last, _existential, _chain_conjuncts, _raise_prepositions, _raise_copulas):
        step(tree)
    for word in tree.values():
        word.label, word.tag = _label(tree, word), _tag(tree, word)
    return _is_tree(tree)


def to_doc(tree: Tree, vocab: Vocab) -> Doc:
    words = [tree[place] for place in sorted(tree)]
    return Doc(
        vocab,
        words=[word.form for word in words],
        spaces=[word.space for word in words],
        tags=[word.tag for word in words],
        heads=[(word.head or word.place) - 1 for word in words],
        deps=[word.label for word in words],
        sent_starts=[word.place == 1 for word in words],
    )


def docs(path: Path, vocab: Vocab) -> list[Doc]:
    """The converted sentences of a CoNLL-U file."""
    return [to_doc(tree, vocab) for tree in read_conllu(path) if convert(tree)]


def _children(tree: Tree, place: int) -> list[Word]:
    return [word for word in tree.values() if word.head == place]


def _head_names_last(tree: Tree) -> None:
    for place in sorted(tree):
        flat = [word for word in _children(tree, place) if word.base == "flat"]
        if not flat:
            continue
        first, last = tree[place], max(flat, key=lambda word: word.place)
        last.head, last.label = first.head, first.label
        for child in _children(tree, place):
            child.head = last.place
            if child.base == "flat":
                child.label = "compound"
        first.head, first.label = last.place, "compound"
        if last.upos == "PUNCT":
            last.upos = first.upos


def _existential(tree: Tree) -> None:
    for word in tree.values():
        if word.label == "expl" and word.lower == "there":
            for sibling in _children(tree, word.head):
                if sibling.label == "nsubj":
                    sibling.label = "attr"


def _chain_conjuncts(tree: Tree) -> None:
    """UD hangs all conjuncts on the first, ours each on the one before, with the "and" in front of it."""
    for place in sorted(tree):
        previous = place
        for conjunct in [word for word in _children(tree, place) if word.base == "conj"]:
            for child in _children(tree, conjunct.place):
                if child.place < conjunct.place and (child.label == "cc" or child.form in {",", ";"}):
                    child.head = previous
            conjunct.head, previous = previous, conjunct.place


def _raise_prepositions(tree: Tree) -> None:
    for place in sorted(tree):
        noun = tree[place]
        markers = [
            word
            for word in _children(tree, place)
            if word.label == "case" and word.place < place and word.tag != "POS"
        ]
        if markers and noun.label != "nmod:poss" and noun.base in CASED:
            _raise_preposition(tree, noun, markers)
        elif noun.base in {"advcl", "acl"} and noun.tag == "VBG":
            marks = [
                word
                for word in _children(tree, place)
                if word.label == "mark" and word.tag == "IN" and word.place < place
            ]
            if len(marks) == 1:
                marks[0].head, marks[0].label = noun.head, "prep"
                noun.head, noun.label = marks[0].place, "pcomp"


def _raise_preposition(tree: Tree, noun: Word, markers: list[Word]) -> None:
    first = last = markers[0]
    outer = noun.base in OUTER
    was_conjunct = noun.base == "conj"
    first.head = noun.head
    first.label = "agent" if noun.label == "obl:agent" else noun.label if outer else "prep"
    for fixed in _children(tree, first.place):
        if fixed.label == "fixed" and fixed.upos in {"ADP", "SCONJ"}:
            fixed.label, last = "prep", fixed
    for marker in markers[1:]:
        marker.head, marker.label, last = last.place, "prep", marker
    noun.head, noun.label = last.place, "pobj"
    if not outer:
        return
    for child in _children(tree, noun.place):
        phrase = any(word.label == "case" for word in _children(tree, child.place))
        if (child.label == "punct" and not was_conjunct) or (child.base in {"cc", "conj"} and phrase):
            child.head = first.place


def _raise_copulas(tree: Tree) -> None:
    """ "is" heads "the dog is black" (acomp), "is a dog" (attr) and "is on the table" (prep)."""
    for place in sorted(tree):
        be = tree[place]
        if be.label != "cop" or be.head not in tree:
            continue
        predicate = top = tree[be.head]
        if predicate.label == "pobj":
            top = tree[predicate.head]
            while top.label == "prep" and top.head == top.place - 1 and tree[top.head].upos == "ADP":
                top = tree[top.head]
        be.head = top.head
        be.label = ("ROOT" if top.head == 0 else "ccomp") if top.label in {"prep", "agent"} else top.label
        below = _children(tree, predicate.place)
        for child in below + (_children(tree, top.place) if top is not predicate else []):
            if child is not be and child is not predicate and _belongs_to_be(tree, child, be, predicate):
                child.head = be.place
        top.head = be.place
        if top is not predicate:
            top.label = "prep"
        elif predicate.upos in {"VERB", "AUX"}:
            predicate.label = "acomp" if predicate.tag in {"VBN", "JJ"} else "ccomp"
        else:
            predicate.label = {"ADJ": "acomp", "ADV": "advmod"}.get(predicate.upos, "attr")


def _belongs_to_be(tree: Tree, child: Word, be: Word, predicate: Word) -> bool:
    nominal = predicate.upos in {"NOUN", "PROPN", "PRON"}
    before = child.place < be.place
    if child.base in CLAUSAL:
        return True
    if child.base == "advmod":
        between = nominal and child.place < predicate.place
        return before or child.lower in NEGATIONS or between
    if child.base == "conj":
        return any(word.base in {"nsubj", "cop"} for word in _children(tree, child.place))
    return before and (child.base == "cc" or (child.label == "prep" and nominal))


def _label(tree: Tree, word: Word) -> str:
    head = tree.get(word.head)
    label, base = word.label, word.base
    if head is None:
        return "ROOT"
    if label in DONE:
        return label
    if label in SIMPLE:
        return SIMPLE[label]
    if base == "nmod":
        return "npadvmod" if head.upos in {"ADJ", "ADV", "VERB"} else "nmod"
    if base == "advmod":
        return "neg" if word.lower in NEGATIONS else "quantmod" if head.upos == "NUM" else "advmod"
    if base == "mark":
        return "aux" if word.tag == "TO" else "mark"
    if base == "case":
        return "case" if word.tag == "POS" else "prep"
    if base == "fixed":
        return "pcomp" if word.upos in {"ADP", "SCONJ"} else "advmod"
    if base == "xcomp":
        return _open_complement(tree, word)
    return base if base in KEPT else SIMPLE.get(base, "dep")


def _open_complement(tree: Tree, word: Word) -> str:
    if word.upos in {"VERB", "AUX"}:
        return "xcomp"
    if word.upos == "ADJ":
        return "acomp"
    has_object = any(child.label in {"obj", "dobj"} for child in _children(tree, word.head))
    return "oprd" if has_object else "attr"


def _tag(tree: Tree, word: Word) -> str:
    """Penn tags as English spaCy pipelines give them: "next to" is an adverb with a preposition."""
    if word.lower == "next" and word.label == "prep" and word.tag == "IN":
        word.label = "advmod"
        return "RB"
    return word.tag


def _is_tree(tree: Tree) -> bool:
    for word in tree.values():
        seen = set()
        place = word.place
        while place:
            if place in seen:
                return False
            seen.add(place)
            place = tree[place].head
    return sum(word.head == 0 for word in tree.values()) == 1
