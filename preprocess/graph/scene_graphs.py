"""Scene graphs: captions in, concepts with exact spans out."""

import copy
import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import sng_parser
import sng_parser.backends.spacy_parser as library
from spacy.language import Language
from spacy.tokens import Doc

from macco.pipeline.aligned import Aligned
from macco.pipeline.errors import UserError
from macco.pipeline.schema import ATTRIBUTE, OBJECT, RELATION, Concept, Span
from macco.preprocess.graph.language import load_pipeline
from macco.preprocess.graph.lexicon import BE
from macco.preprocess.graph.reading import places, read, readable
from macco.preprocess.graph.repairs import repair
from macco.preprocess.graph.sentences import joined, sentences
from macco.preprocess.graph.words import Chunk, Sentence, Word

__all__ = ["RULES", "SceneGraphs", "places", "readable"]

RULES = ("repaired", "original")
ENDS = ("subject", "object")


class SceneGraphs:
    """Parses captions with a spaCy pipeline and SceneGraphParser's rules.

    `nlp` is an English pipeline with a tagger, a dependency parser (the labels of spaCy's own English
    pipelines) and a lemmatizer. `rules` is "original", the rules as they are, or "repaired", with
    `repairs` before them. Not picklable: build one per process.
    """

    def __init__(self, nlp: Language, rules: str = "repaired") -> None:
        if rules not in RULES:
            raise UserError(f"rules {rules!r} are unknown: choose {' or '.join(RULES)}")
        self.nlp = nlp
        self.repaired = rules == "repaired"
        parser = sng_parser.Parser("spacy", model="blank:en")
        parser.unwrapped.nlp = lambda sentence: sentence  # it is handed parsed sentences
        self.rules = parser.unwrapped.parse
        # The rules copy their relations deeply: flat dicts, so that a shallow copy is as good, at a tenth of the time.
        library.deepcopy = copy.copy

    @classmethod
    def load(cls, parser: str, rules: str) -> "SceneGraphs":
        """With a pipeline by its name (see `load_pipeline`)."""
        return cls(load_pipeline(parser), rules=rules)

    def parse(self, captions: Sequence[str]) -> list[list[Concept]]:
        """The concepts of each caption, sentence by sentence; equal captions, and sentences, are parsed once."""
        parts = {caption: sentences(caption[: self.nlp.max_length]) for caption in captions}
        unique = list(dict.fromkeys(text for of_caption in parts.values() for _, text in of_caption))
        reads = [read(text, self._is_word) for text in unique]
        docs = self.nlp.pipe((text for text, _ in reads), batch_size=256)
        with _no_collection():
            graphs = {
                text: self.concepts(doc, text, aligned)
                for text, (_, aligned), doc in zip(unique, reads, docs, strict=True)
            }
            whole = {
                caption: joined([(start, graphs[text]) for start, text in of_caption])
                for caption, of_caption in parts.items()
            }
        return [whole[caption] for caption in captions]

    def concepts(self, doc: Doc, caption: str, aligned: Aligned | None = None) -> list[Concept]:
        """The concepts of one parsed caption: objects, attributes, relations, each by position.

        `aligned` is the text of the doc with its places in the caption, where they differ.
        """
        sentence = Sentence(doc, caption, aligned)
        if self.repaired:
            repair(sentence)
        else:
            sentence.noun_chunks = [Chunk(c.start, c.end, sentence[c.root.i]) for c in doc.noun_chunks]
        concepts = _Reader(sentence, self.rules(sentence), self.repaired).concepts()
        sentence.dissolve()
        return concepts

    def _is_word(self, text: str) -> bool:
        return text.lower() in self._dictionary

    @cached_property
    def _dictionary(self) -> frozenset[str]:
        """The words that the pipeline's lemmatizer lists."""
        lookups = (
            getattr(self.nlp.get_pipe("lemmatizer"), "lookups", None)
            if self.nlp.has_pipe("lemmatizer")
            else None
        )
        index = lookups.get_table("lemma_index") if lookups and lookups.has_table("lemma_index") else {}
        return frozenset(word for words in index.values() for word in words)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Pause Python's search for dead circles: many small objects live and die here, and none in a circle."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Reader:
    """Turns what the rules made of one sentence into concepts."""

    def __init__(self, sentence: Sentence, graph: dict[str, Any], repaired: bool) -> None:
        self.read = sentence.read
        self.words = sentence.words
        self.sentence = sentence
        self.entities: list[dict[str, Any]] = graph["entities"]
        self.roots = [sentence.words[entity["span_bounds"][1] - 1] for entity in self.entities]
        self.relations: list[dict[str, Any]] = graph["relations"]
        self.repaired = repaired

    def concepts(self) -> list[Concept]:
        objects: list[Concept] = []
        attributes: list[Concept] = []
        place: dict[int, int] = {}  # entity of the rules -> object
        by_word: dict[int, int] = {}  # place of its noun -> object
        for e in sorted(range(len(self.entities)), key=lambda e: self.entities[e]["span_bounds"]):
            root = self.roots[e]
            if self.repaired and root.pos_ == "PRON":
                continue
            owner = place[e] = by_word[root.i] = len(objects)
            modifiers = self._modifiers(self.entities[e], root)
            objects.append(self._object(self.entities[e], root, modifiers))
            if objects[-1].denied:
                continue  # nothing is said of what is not there
            attributes += [self._attribute(word, owner, objects[-1].phrase) for word in modifiers]
        for e, root in enumerate(self.roots):
            antecedent = self.sentence.antecedents.get(root.i)
            if antecedent in by_word:
                place[e] = by_word[antecedent]
        attributes.sort(key=lambda attribute: attribute.head.start)
        return objects + attributes + self._relations(place)

    def _modifiers(self, entity: dict[str, Any], root: Word) -> list[Word]:
        """Adjectives, participles and numerals by position, each once."""
        words = [word for m in entity["modifiers"] if m["dep"] != "det" for word in m["span"].words]
        if self.repaired:
            if root.dep_ == "conj":  # a dog and a cat are black
                words += [kid for kid in root.head.kids if kid.dep_ == "amod" and kid.i > root.i]
            words = [word for word in words if word not in self.roots and word.pos_ not in ("DET", "PRON")]
        return sorted(set(words)) if len(words) > 1 else words

    def _object(self, entity: dict[str, Any], root: Word, modifiers: list[Word]) -> Concept:
        heads = _places([word.core for word in entity["head"].words])
        first = min(entity["span_bounds"][0], heads[0])
        unsaid = self.sentence.apart | self.sentence.denied
        described = [
            w.parts for w in modifiers if w.pos != "NUM" and w.dep_ != "nummod" and w.i not in unsaid
        ]
        phrase = " ".join(map(self._form, [*described, heads]))
        lemma = self._lemma(heads) if self.repaired else entity["lemma_head"].lower()
        span = Span(self.words[first].start, self.words[max(root.i, heads[-1])].end)
        denied = root.i in self.sentence.denied
        return Concept(OBJECT, (span,), lemma, self._cover(heads), root.pos, phrase, denied=denied)

    def _attribute(self, word: Word, owner: int, phrase: str | None) -> Concept:
        spans, lemma = self._spans(word.parts), self._lemma(word.parts)
        head, denied = self._cover(word.core), word.i in self.sentence.denied
        return Concept(ATTRIBUTE, spans, lemma, head, word.pos, phrase, owner=owner, denied=denied)

    def _relations(self, place: dict[int, int]) -> list[Concept]:
        found: dict[tuple[Any, ...], Concept] = {}
        for relation in self.relations:
            words: tuple[Word, ...] = relation["relation"].words
            subject, object_ = place.get(relation["subject"]), place.get(relation["object"])
            if self.repaired:
                if len(words) > 1:
                    words = tuple(word for word in words if word.form not in BE) or words
                if self.roots[relation["object"]].i in self.sentence.reciprocal:
                    object_ = self._each_other(relation["subject"], place)
                elif self._misread(words, relation, subject, object_):
                    continue
            parts = _places([word.parts for word in words])
            spans = self._spans(parts)
            # Of a preposition that the rules cut out, "in front of", the middle: "front".
            core = words[len(words) // 2 if len(words) > 2 else 0].core
            head, pos = self._cover(core), self.words[core[-1]].pos
            denied = not self.sentence.denied.isdisjoint([*parts, *(word.i for word in words)])
            if not denied and any(self.roots[relation[end]].i in self.sentence.denied for end in ENDS):
                continue
            ordered = parts
            if (
                len(spans) > 1 and not denied and self.words[core[0]].pos == "VERB"
            ):  # on the wall hangs a painting
                ordered = (*(p for p in parts if p >= core[0]), *(p for p in parts if p < core[0]))
            lemma = self._lemma(ordered)
            concept = Concept(RELATION, spans, lemma, head, pos, None, subject, object_, denied=denied)
            order = (spans[0].start, -1 if subject is None else subject, -1 if object_ is None else object_)
            found.setdefault((*order, spans), concept)
        return [found[key] for key in sorted(found, key=lambda key: key[:3])]

    def _each_other(self, subject: int, place: dict[int, int]) -> int | None:
        """In "a dog and a cat next to each other" the dog's other is the cat; that of "dogs" are dogs."""
        root = self.roots[subject]
        first = root.head if root.dep_ == "conj" else root
        row = [first, *(kid for kid in first.kids if kid.dep_ == "conj" and kid.is_noun)]
        other = row[(row.index(root) + 1) % len(row)] if root in row else root
        return next((place[e] for e in place if self.roots[e] is other), None)

    def _misread(
        self, words: Sequence[Word], relation: dict[str, Any], subject: int | None, object_: int | None
    ) -> bool:
        if subject == object_ or (subject is None and words[0].form in BE):
            return True
        # In "a vase of flowers and a bowl" the bowl has no flowers.
        root: Word = self.roots[relation["subject"]]
        return root.dep_ == "conj" and root.head.i < words[0].i < root.i

    def _lemma(self, parts: Sequence[int]) -> str:
        """Lemmas joined as the words are: "ice cream", "t-shirt"."""
        return self._joined(parts, [self.words[part].lemma_ for part in parts])

    def _form(self, parts: Sequence[int]) -> str:
        """The words as they are written, in lower case, with single blanks."""
        return self._joined(parts, [self.words[part].form for part in parts])

    def _joined(self, parts: Sequence[int], forms: list[str]) -> str:
        if len(parts) == 1:
            return forms[0].lower()
        text, end = "", self.words[parts[0]].at
        for part, form in zip(parts, forms, strict=True):
            word = self.words[part]
            text += form if end == word.at else " " + form
            end = word.to
        return text.lower()

    def _cover(self, parts: Sequence[int]) -> Span:
        """From the first of these words, which are in order, to the last."""
        return Span(self.words[parts[0]].start, self.words[parts[-1]].end)

    def _spans(self, parts: Sequence[int]) -> tuple[Span, ...]:
        """One span per run of words with nothing but blanks between."""
        first = self.words[parts[0]]
        if len(parts) == 1:
            return (Span(first.start, first.end),)
        start, last = first.start, first
        spans: list[Span] = []
        for word in (self.words[part] for part in parts[1:]):
            if self.read[last.to : word.at].strip():
                spans.append(Span(start, last.end))
                start = word.start
            last = word
        return (*spans, Span(start, last.end))


def _places(groups: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """All places of these words, in order, each once."""
    return groups[0] if len(groups) == 1 else tuple(sorted({place for group in groups for place in group}))
