"""Scene graphs: captions in, concepts with exact spans out."""

import copy
import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sng_parser
import sng_parser.backends.spacy_parser as library
from spacy.language import Language
from spacy.tokens import Doc

from macco.pipeline.errors import UserError
from macco.pipeline.schema import ATTRIBUTE, OBJECT, RELATION, Concept, Span
from macco.preprocess.graph.language import load_pipeline
from macco.preprocess.graph.lexicon import BE
from macco.preprocess.graph.repairs import repair
from macco.preprocess.graph.words import Chunk, Sentence, Word

RULES = ("repaired", "original")


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
        """The concepts of each caption; equal captions are parsed once."""
        unique = list(dict.fromkeys(captions))
        texts = [readable(caption[: self.nlp.max_length]) for caption in unique]
        docs = self.nlp.pipe(texts, batch_size=256)
        with _no_collection():
            graphs = {
                caption: self.concepts(doc, caption, None if text == caption else places(caption))
                for caption, text, doc in zip(unique, texts, docs, strict=True)
            }
        return [graphs[caption] for caption in captions]

    def concepts(self, doc: Doc, caption: str, place: Sequence[int] | None = None) -> list[Concept]:
        """The concepts of one parsed caption: objects, attributes, relations, each by position.

        `place` gives the place in the caption of each character of the doc, where they differ.
        """
        sentence = Sentence(doc, caption, place)
        if self.repaired:
            repair(sentence)
        else:
            sentence.noun_chunks = [Chunk(c.start, c.end, sentence[c.root.i]) for c in doc.noun_chunks]
        concepts = _Reader(sentence, self.rules(sentence), self.repaired).concepts()
        sentence.dissolve()
        return concepts


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


def readable(caption: str) -> str:
    """The caption as the parser reads it best, with single blanks and without what spaCy refuses."""
    text = " ".join(caption.split())
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, as JSON may hold it
        return "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)
    return text


def places(caption: str) -> list[int]:
    """The place in the caption of each character of `readable(caption)`."""
    kept = [i for i, c in enumerate(caption) if not c.isspace() or (i > 0 and not caption[i - 1].isspace())]
    while kept and caption[kept[-1]].isspace():
        del kept[-1]
    return kept


class _Reader:
    """Turns what the rules made of one sentence into concepts."""

    def __init__(self, sentence: Sentence, graph: dict[str, Any], repaired: bool) -> None:
        self.text = sentence.text
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
        described = [w.parts for w in modifiers if w.pos != "NUM" and w.dep_ != "nummod"]
        phrase = " ".join(map(self._form, [*described, heads]))
        lemma = self._lemma(heads) if self.repaired else entity["lemma_head"].lower()
        span = Span(self.words[first].start, self.words[max(root.i, heads[-1])].end)
        return Concept(OBJECT, (span,), lemma, self._cover(heads), root.pos, phrase)

    def _attribute(self, word: Word, owner: int, phrase: str | None) -> Concept:
        spans, lemma = self._spans(word.parts), self._lemma(word.parts)
        return Concept(ATTRIBUTE, spans, lemma, self._cover(word.core), word.pos, phrase, owner=owner)

    def _relations(self, place: dict[int, int]) -> list[Concept]:
        found: dict[tuple[Any, ...], Concept] = {}
        for relation in self.relations:
            words: tuple[Word, ...] = relation["relation"].words
            subject, object_ = place.get(relation["subject"]), place.get(relation["object"])
            if self.repaired:
                if len(words) > 1:
                    words = tuple(word for word in words if word.form not in BE) or words
                if self.sentence.agents and any(word.i in self.sentence.agents for word in words):
                    subject, object_ = object_, subject
                if self._misread(words, relation, subject, object_):
                    continue
            parts = _places([word.parts for word in words])
            spans = self._spans(parts)
            # Of a preposition that the rules cut out, "in front of", the middle: "front".
            core = words[len(words) // 2 if len(words) > 2 else 0].core
            head, pos = self._cover(core), self.words[core[-1]].pos
            concept = Concept(RELATION, spans, self._lemma(parts), head, pos, subject=subject, object=object_)
            order = (spans[0].start, -1 if subject is None else subject, -1 if object_ is None else object_)
            found.setdefault((*order, spans), concept)
        return [found[key] for key in sorted(found, key=lambda key: key[:3])]

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
        if len(parts) == 1:
            return self.words[parts[0]].lemma_.lower()
        lemma, end = "", self.words[parts[0]].start
        for part in parts:
            word = self.words[part]
            lemma += word.lemma_ if end == word.start else " " + word.lemma_
            end = word.end
        return lemma.lower()

    def _form(self, parts: Sequence[int]) -> str:
        """The words as they are written, in lower case, with single blanks."""
        if len(parts) == 1:
            return self.words[parts[0]].form
        text = " ".join(self.text[span.start : span.end] for span in self._spans(parts))
        return " ".join(text.lower().split())

    def _cover(self, parts: Sequence[int]) -> Span:
        """From the first of these words, which are in order, to the last."""
        return Span(self.words[parts[0]].start, self.words[parts[-1]].end)

    def _spans(self, parts: Sequence[int]) -> tuple[Span, ...]:
        """One span per run of words with nothing but blanks between."""
        first = self.words[parts[0]]
        if len(parts) == 1:
            return (Span(first.start, first.end),)
        start, end = first.start, first.end
        spans: list[Span] = []
        for word in (self.words[part] for part in parts[1:]):
            if self.text[end : word.start].strip():
                spans.append(Span(start, end))
                start = word.start
            end = word.end
        return (*spans, Span(start, end))


def _places(groups: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """All places of these words, in order, each once."""
    return groups[0] if len(groups) == 1 else tuple(sorted({place for group in groups for place in group}))
