"""Caption-like sentences with gold tags, heads and labels, drawn from a small grammar.

Treebanks of news, mail and reviews hold hardly any noun phrase standing alone, few progressive participles behind
nouns and few everyday objects; captions hold little else.
"""

import random

from caption_phrases import NounPhrases
from caption_tree import Node, to_doc
from caption_words import WORDS, Vocabulary, verb_forms
from spacy.tokens import Doc
from spacy.vocab import Vocab


class Grammar(NounPhrases):
    """Draws captions; all choices come from `rng`."""

    def __init__(self, vocabulary: Vocabulary, rng: random.Random) -> None:
        super().__init__(vocabulary, rng)
        self.transitive = [verb_forms(entry) for entry in WORDS["transitive"]]
        self.intransitive = [verb_forms(entry) for entry in WORDS["intransitive"]]
        self.complement = [verb_forms(entry) for entry in WORDS["complement_verbs"]]
        self.ditransitive = [verb_forms(entry) for entry in WORDS["ditransitive"]]
        self.passives = [entry.split(":") for entry in WORDS["passive"]]
        self.particles = [(verb_forms(verb), prt) for verb, prt in (e.split(":") for e in WORDS["particles"])]
        self.prepositional = [
            (verb_forms(v), rest) for v, *rest in (e.split(":") for e in WORDS["prepositional"])
        ]
        self.complex = [[part.split(":") for part in line.split()] for line in WORDS["complex"]]

    def caption(self, vocab: Vocab) -> Doc:
        """One caption as a gold Doc: capitalised or not, with or without a final dot."""
        self.telegraphic = self.chance(0.1)
        root = self._caption()
        if self.chance(0.6):
            root.add(Node(".", ".", "punct"))
        return to_doc(root, vocab, capital=self.chance(0.7), upper=self.chance(0.01))

    def _caption(self) -> Node:
        draw = self.rng.random()
        if draw < 0.38:
            return self._standing_alone("ROOT")
        if draw < 0.46:
            return self._picture()
        if draw < 0.5:
            return self._existential()
        return self._clause("ROOT")

    def _standing_alone(self, label: str) -> Node:
        root = self.noun_phrase(label)
        if self.chance(0.2):
            self.coordinate(root)
        for _ in range(self.rng.choice((0, 1, 1, 1, 2))):
            if self.chance(0.06):
                root.add(Node(",", ",", "punct"))
            root.add(self._post_modifier())
        return root

    def _picture(self) -> Node:
        """ "a photo of a man riding a horse": what follows belongs to the man."""
        form = self.pick("pictures")
        determiner = [] if self.telegraphic or self.chance(0.2) else [Node("a", "DT", "det")]
        *compound, head = form.split()
        root = Node(head, "NN", "ROOT", determiner + [Node(word, "NN", "compound") for word in compound])
        return root.add(Node("of", "IN", "prep").add(self._standing_alone("pobj")))

    def _existential(self) -> Node:
        subject = self._modified("attr", 0.7)
        if self.chance(0.15):
            self.coordinate(subject)
        be = self._be(subject.tag == "NNS", "ROOT")
        be.left.append(Node("there", "EX", "expl"))
        be.add(subject)
        if self.chance(0.4):
            be.add(self._prepositional())
        return be

    def _clause(self, label: str) -> Node:
        subject = self._modified("nsubj", 0.2)
        if self.chance(0.12):
            self.coordinate(subject)
        verb = self._predicate(subject, label)
        if label == "ROOT" and self.chance(0.05):
            if self.chance(0.3):
                verb.add(Node(",", ",", "punct"))
            verb.add(Node("and", "CC", "cc"), self._clause("conj"))
        return verb

    def _predicate(self, subject: Node, label: str) -> Node:
        """A verb phrase agreeing with its subject, which it takes as first dependent."""
        draw = self.rng.random()
        if draw < 0.3:
            verb = self._verb_phrase("VBG", label)
            verb.left.append(self._be(subject.several, "aux"))
        elif draw < 0.56:
            verb = self._verb_phrase("VBP" if subject.several else "VBZ", label)
        elif draw < 0.72:
            verb = self._passive(label)
            being = self.chance(0.08)
            verb.left.append(self._be(subject.several, "aux" if being else "auxpass"))
            if being:
                verb.left.append(Node("being", "VBG", "auxpass"))
            subject.label = subject.label.replace("nsubj", "nsubjpass")
        else:
            verb = self._copula(subject, label)
        if self.chance(0.06):
            adverb = self.rng.choice(("also", "just", "slowly", "all", "both", "very carefully"))
            *degree, adverb = adverb.split() if self.chance(0.6) else [self.rare_adverb(self.rng)]
            verb.left.insert(0, Node(adverb, "RB", "advmod", [Node(word, "RB", "advmod") for word in degree]))
        verb.left.insert(0, subject)
        return verb

    def _copula(self, subject: Node, label: str) -> Node:
        be = self._be(subject.several, label)
        draw = self.rng.random()
        if draw < 0.42:
            return be.add(self._prepositional())
        if draw < 0.5:
            form = self.pick("comparatives")
            comparative = Node(form, "JJR", "acomp")
            return be.add(comparative.add(self._preposition("than", self.noun_phrase("pobj"))))
        if draw < 0.86:
            predicate = Node(self.pick("predicates" if self.chance(0.6) else "colours"), "JJ", "acomp")
            if self.chance(0.2):
                adverb = self.rng.choice(("very", "all", "mostly", "so", "almost"))
                predicate.left.append(Node(adverb, "RB", "advmod"))
            be.add(predicate)
            if predicate.form == "full":
                predicate.add(self._preposition("of", self.noun_phrase("pobj")))
            elif self.chance(0.3):
                predicate.add(Node("and", "CC", "cc"), Node(self.pick("predicates"), "JJ", "conj"))
            elif self.chance(0.25):
                be.add(self._prepositional())
            return be
        return be.add(self._modified("attr", 0.3, plural=subject.several))

    def _be(self, several: bool, label: str) -> Node:
        return Node("are" if several else "is", "VBP" if several else "VBZ", label)

    def _verb_phrase(self, tag: str, label: str, last: bool = False) -> Node:
        """A verb with its arguments; circumstances follow unless it is the `last` of nested ones."""
        draw = self.rng.random()
        if draw < 0.36:
            verb = Node(self.rng.choice(self.transitive)[tag], tag, label).add(self._object("dobj"))
        elif draw < 0.68:
            verb = self._intransitive(tag, label)
        elif draw < 0.82:
            forms, prepositions = self.rng.choice(self.prepositional)
            inner = self._object("pobj")
            for preposition in reversed(prepositions):
                inner = self._preposition(preposition, inner)
            verb = Node(forms[tag], tag, label).add(inner)
        elif draw < 0.93:
            forms, particle = self.rng.choice(self.particles)
            parts = [Node(particle, "RP", "prt"), self._object("dobj")]
            verb = Node(forms[tag], tag, label).add(*(parts[::-1] if self.chance(0.45) else parts))
        elif not last and draw < 0.97:
            inner = self._verb_phrase("VB", "xcomp", last=True)
            inner.left.insert(0, Node("to", "TO", "aux"))
            verb = Node(self.rng.choice(self.complement)[tag], tag, label).add(inner)
        else:
            verb = Node(self.rng.choice(self.ditransitive)[tag], tag, label)
            verb.add(self.noun_phrase("dative"), self.noun_phrase("dobj"))
        if not last:
            self._extend(verb, tag)
        return verb

    def _intransitive(self, tag: str, label: str) -> Node:
        verb = Node(self.rng.choice(self.intransitive)[tag], tag, label)
        if self.chance(0.25):
            adverb = self.pick("adverbs")
            verb.add(Node(adverb, *(("RP", "prt") if adverb in {"up", "down", "over"} else ("RB", "advmod"))))
        elif self.chance(0.06):
            side = Node("side", "NN", "npadvmod")
            verb.add(side.add(self._preposition("by", Node("side", "NN", "pobj"))))
        if self.chance(0.8):
            verb.add(self._prepositional())
        return verb

    def _extend(self, verb: Node, tag: str) -> None:
        """What may follow the arguments: a place, a second verb, a circumstance."""
        if self.chance(0.35):
            verb.add(self._prepositional())
        draw = self.rng.random()
        if draw < 0.07:
            verb.add(Node("and", "CC", "cc"), self._verb_phrase(tag, "conj", last=True))
        elif draw < 0.15:
            other = self._verb_phrase("VBG", "advcl", last=True)
            if draw < 0.12:
                other.left.insert(0, Node("while", "IN", "mark"))
            elif self.chance(0.4):
                verb.add(Node(",", ",", "punct"))
            verb.add(other)
        elif draw < 0.19:
            other = self._subordinate()
            other.left.insert(0, Node(self.rng.choice(("as", "while", "as")), "IN", "mark"))
            verb.add(other)
        elif draw < 0.21:
            other = self._verb_phrase("VB", "advcl", last=True)
            other.left.insert(0, Node("to", "TO", "aux"))
            verb.add(other)

    def _subordinate(self) -> Node:
        subject = self.noun_phrase("nsubj")
        if self.chance(0.35):
            subject = Node(self.rng.choice(("he", "she", "it")), "PRP", "nsubj")
        verb = self._verb_phrase("VBP" if subject.several else "VBZ", "advcl", last=True)
        verb.left.insert(0, subject)
        return verb

    def _passive(self, label: str) -> Node:
        form, *rest = self.rng.choice(self.passives)
        verb = Node(form, "VBN", label)
        preposition = rest.pop()
        verb.add(*(Node(particle, "RP", "prt") for particle in rest))
        verb.add(
            Node(preposition, "IN", "agent" if preposition == "by" else "prep").add(self._object("pobj"))
        )
        if self.chance(0.2):
            verb.add(self._prepositional())
        return verb

    def _post_modifier(self) -> Node:
        draw = self.rng.random()
        if draw < 0.42:
            return self._prepositional()
        if draw < 0.72:
            return self._verb_phrase("VBG", "acl")
        if draw < 0.84:
            return self._passive("acl")
        if draw < 0.92:
            return self._relative()
        if draw < 0.95:
            adjective = Node("full", "JJ", "amod")
            return adjective.add(self._preposition("of", self.noun_phrase("pobj")))
        inner = self.noun_phrase("pobj")
        inner.add(self._passive("acl") if self.chance(0.4) else self._prepositional())
        return self._preposition("with", inner)

    def _relative(self) -> Node:
        """ "that is sitting on a sofa", "that a dog chases"."""
        form, tag = self.rng.choice(
            (("that", "WDT"), ("that", "WDT"), ("which", "WDT"), ("who", "WP"), ("who", "WP"))
        )
        if self.chance(0.8) or form == "who":
            return self._predicate(Node(form, tag, "nsubj"), "relcl")
        subject = self.noun_phrase("nsubj")
        verb_tag = "VBG" if self.chance(0.6) else "VBP" if subject.several else "VBZ"
        verb = Node(
            self.rng.choice(self.transitive)[verb_tag], verb_tag, "relcl", [Node(form, tag, "dobj"), subject]
        )
        if verb_tag == "VBG":
            verb.left.append(self._be(subject.several, "aux"))
        return verb

    def _prepositional(self) -> Node:
        draw = self.rng.random()
        if draw < 0.24:
            return self._complex_preposition()
        if draw < 0.28:
            time = Node(self.rng.choice(("night", "home", "dusk", "school", "work")), "NN", "pobj")
            return self._preposition("at", time)
        if draw < 0.36:
            place = Node(self.pick("places"), "NN", "pobj")
            if not self.telegraphic and self.chance(0.85):
                place.left.append(Node("the", "DT", "det"))
            return self._preposition(self.rng.choice(("in", "in", "on", "at", "from")), place)
        return self._preposition(self.pick("prepositions"), self._object("pobj"))

    def _preposition(self, form: str, inner: Node) -> Node:
        return Node(form, "IN", "prep").add(inner)

    def _complex_preposition(self) -> Node:
        """ "in front of X": of -> front -> in; "right next to X": right -> next, to -> next."""
        determiners: list[Node] = []
        head = last = None
        for form, tag in self.rng.choice(self.complex):
            if tag in {"DT", "RBR"}:
                determiners.append(Node(form, tag[:2], "det" if tag == "DT" else "advmod"))
                continue
            label = {"NN": "pobj", "RB": "advmod"}.get(tag, "prep")
            node = Node(form, tag, label, determiners)
            determiners = []
            if last is None:
                head = node
            else:
                last.add(node)
            last = node
        assert head is not None
        assert last is not None
        if last.form == "between" and self.chance(0.7):
            inner = self.noun_phrase("pobj")
            inner.add(Node("and", "CC", "cc"), self.noun_phrase("conj"))
        else:
            inner = self._object("pobj")
        last.add(inner)
        return head

    def _object(self, label: str) -> Node:
        """The noun phrase behind a verb or preposition, rarely a pronoun or a coordination."""
        if self.chance(0.05):
            return Node(self.rng.choice(("it", "it", "them", "him", "her", "something")), "PRP", label)
        if label == "pobj" and self.chance(0.02):
            return Node("other", "JJ", label, [Node("each", "DT", "det")])
        phrase = self._modified(label, 0.13)
        if self.chance(0.15):
            self.coordinate(phrase)
        return phrase

    def _modified(self, label: str, probability: float, plural: bool | None = None) -> Node:
        """A noun phrase that may have a post-modifier."""
        phrase = self.noun_phrase(label, plural)
        if self.chance(probability) and not phrase.right:
            draw = self.rng.random()
            if draw < 0.6:
                preposition = self.rng.choice(("of", "of", "with", "with", "in", "on"))
                phrase.add(self._preposition(preposition, self.noun_phrase("pobj")))
            elif draw < 0.75:
                phrase.add(self._verb_phrase("VBG", "acl", last=True))
            elif draw < 0.85:
                phrase.add(self._passive("acl"))
            else:
                phrase.add(self._relative())
        return phrase
