"""A parsed caption as SceneGraphParser's rules read it: plain words that can be edited before the rules run.

It stands in for a spaCy Doc. spaCy makes a new object for every look at a token and finds the noun
chunks anew each time; here that happens once. And a text remembers its words, so that whatever the
rules put together can be traced to its place in the caption without searching.
"""

from bisect import insort
from collections.abc import Iterator
from typing import Any, overload

from spacy.tokens import Doc

from macco.pipeline.aligned import Aligned


class Text(str):
    """A string that remembers the words it was made of, through `+` and copying."""

    __slots__ = ("words",)
    words: tuple["Word", ...]

    @staticmethod
    def of(text: str, words: tuple["Word", ...]) -> "Text":
        made = str.__new__(Text, text)
        made.words = words
        return made

    def __add__(self, other: str) -> "Text":
        more = other.words if isinstance(other, Text) else ()
        return Text.of(str.__add__(self, other), self.words + more)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Text":
        return self


class Word:
    """A token, with the names that the rules use, and what edits change.

    parts: places of the tokens that this word stands for; several once it has absorbed others
    core:  those of `parts` that make its head ("ice cream truck", but of "light blue" only "blue")
    pos:   the tagger's part of speech; `pos_` is what the rules see
    start, end: its characters in the caption; at, to: those in the text that was parsed
    """

    __slots__ = (
        "at",
        "core",
        "dep_",
        "end",
        "form",
        "head",
        "i",
        "kids",
        "lemma_",
        "parts",
        "pos",
        "pos_",
        "start",
        "to",
    )

    def __init__(self, i: int, start: int, text: str, lemma: str, pos: str, dep: str) -> None:
        self.i = i
        self.start = self.at = start
        self.end = self.to = start + len(text)
        self.form = text.lower()
        self.lemma_ = lemma or self.form
        self.pos = self.pos_ = pos
        self.dep_ = dep
        self.head = self
        self.kids: list[Word] = []
        self.parts: tuple[int, ...] = (i,)
        self.core: tuple[int, ...] = self.parts

    def __lt__(self, other: "Word") -> bool:
        return self.i < other.i

    @property
    def text(self) -> Text:
        return Text.of(self.form, (self,))

    @property
    def children(self) -> list["Word"]:
        return self.kids

    @property
    def is_noun(self) -> bool:
        return self.pos_ == "NOUN" and self.dep_ != ABSORBED

    @property
    def is_verb(self) -> bool:
        """Whether it is a verb of its own, no auxiliary."""
        return self.pos_ in ("VERB", "AUX") and self.dep_ not in ("aux", "auxpass", ABSORBED)

    @property
    def standing(self) -> "Word":
        """The word that absorbed this one, or itself."""
        word = self
        while word.dep_ == ABSORBED and word.head is not word:
            word = word.head
        return word

    def kid(self, *deps: str) -> "Word | None":
        """The first child with one of these labels."""
        for kid in self.kids:
            if kid.dep_ in deps:
                return kid
        return None

    def within(self, other: "Word") -> bool:
        """Whether `other` is this word or stands above it."""
        word = self
        while word is not other and word.head is not word:
            word = word.head
        return word is other

    def attach(self, head: "Word", dep: str) -> None:
        """Hang this word below `head`, unless that would close a circle."""
        if head.within(self):
            return
        if self.head is not self:
            self.head.kids.remove(self)
        self.head = head
        self.dep_ = dep
        insort(head.kids, self)

    def replace(self, other: "Word") -> None:
        """Take the place of `other`, an ancestor, and hang it below this word."""
        dep, head = other.dep_, other.head
        if head is other:
            self.head.kids.remove(self)
            self.head = self
            self.dep_ = dep
        else:
            self.attach(head, dep)
        other.attach(self, ABSORBED)

    def absorb(self, other: "Word", *, core: bool = False) -> None:
        """Let this word stand for `other` too, unless it is above; what hung below `other` hangs below this word."""
        other.attach(self, ABSORBED)
        if other.head is not self:
            return
        for kid in [kid for kid in other.kids if kid.dep_ != ABSORBED]:
            kid.attach(self, kid.dep_)
        self.parts = tuple(sorted({*self.parts, *other.parts}))
        if core:
            self.core = tuple(sorted({*self.core, *other.core}))


ABSORBED = "absorbed"


class Chunk:
    """Words [start, end) of a sentence around a noun. The rules copy its texts; nobody reads them."""

    __slots__ = ("end", "root", "start")
    text = lemma_ = ""

    def __init__(self, start: int, end: int, root: Word) -> None:
        self.start = start
        self.end = end
        self.root = root


class Cut:
    """Words that the rules cut out of a sentence."""

    def __init__(self, caption: str, words: list[Word]) -> None:
        between = caption[words[0].start : words[-1].end] if words else ""
        self.text = Text.of(between, tuple(words))
        self.lemma_ = " ".join([word.lemma_ for word in words])


class Sentence:
    """The words of one caption, and its noun chunks."""

    def __init__(self, doc: Doc, caption: str, read: Aligned | None = None) -> None:
        """`read`, where given, is the text that was parsed with its places in the caption."""
        self.text = caption
        self.read = caption if read is None else read.text
        self.words = words = [Word(t.i, t.idx, t.text, t.lemma_, t.pos_, t.dep_) for t in doc]
        self.noun_chunks: list[Chunk] = []
        self.antecedents: dict[int, int] = {}  # place of a pronoun -> that of its noun
        self.apart: set[int] = set()  # places of attributes that only some of the things have
        self.denied: set[int] = set()  # places of nouns that are not there, and of what is not so
        self.reciprocal: set[int] = set()  # places of "other" in "each other"
        if read is not None:
            for word in words:
                word.start, word.end = read.starts[word.at], read.ends[word.to - 1]
        for word, distance in zip(words, doc.to_array("HEAD").view("int64").tolist(), strict=True):
            if distance:
                word.head = words[word.i + distance]
                word.head.kids.append(word)

    def __iter__(self) -> Iterator[Word]:
        return iter(self.words)

    @overload
    def __getitem__(self, place: int) -> Word: ...
    @overload
    def __getitem__(self, place: slice) -> Cut: ...
    def __getitem__(self, place: int | slice) -> Word | Cut:
        if isinstance(place, slice):
            return Cut(self.text, self.words[place])
        return self.words[place]

    def dissolve(self) -> None:
        """Untie the words, which hold each other: freed at once, they are no work for the garbage collector."""
        for word in self.words:
            del word.head, word.kids
