"""Noun phrases of the caption grammar, as trees with gold tags and labels."""

import random
from collections import Counter
from collections.abc import Callable
from itertools import accumulate

from caption_tree import Node
from caption_words import WORDS, Vocabulary, plural_of, verb_forms

Choice = tuple[str, str, str]
SINGULAR: list[tuple[float, list[Choice]]] = [
    (0.66, [("a", "DT", "det")]),
    (0.18, [("the", "DT", "det")]),
    (0.09, [(form, "PRP$", "poss") for form in ("his", "her", "their", "its")]),
    (0.03, [(form, "DT", "det") for form in ("another", "this", "some", "each")] + [("one", "CD", "nummod")]),
    (0.03, []),  # a possessor
]
PLURAL: list[tuple[float, list[Choice]]] = [
    (0.35, [(form, "CD", "nummod") for form in ("two", "two", "three", "four", "five", "2")]),
    (0.15, [(form, "JJ", "amod") for form in ("several", "many", "various", "different", "other", "few")]),
    (0.15, [(form, "DT", "det") for form in ("some", "some", "all", "these", "both")]),
    (0.25, [("the", "DT", "det")]),
    (0.10, [(form, "PRP$", "poss") for form in ("his", "her", "their", "its")]),
]


class NounPhrases:
    """Draws noun phrases without post-modifiers. `telegraphic` phrases go without determiners."""

    telegraphic = False

    def __init__(self, vocabulary: Vocabulary, rng: random.Random) -> None:
        self.rng = rng
        self.singular = _sampler(vocabulary.singular)
        self.plural = _sampler(vocabulary.plural)
        self.rare = _sampler(vocabulary.rare)
        self.rare_adjective = _sampler(vocabulary.adjectives)
        self.rare_adverb = _sampler(vocabulary.adverbs)
        self.gerunds = [verb_forms(entry)["VBG"] for entry in WORDS["intransitive"]]

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def pick(self, section: str) -> str:
        """Any entry of a section of caption_words.txt."""
        return self.rng.choice(WORDS[section])

    def noun_phrase(self, label: str, plural: bool | None = None) -> Node:
        if plural is None and self.chance(0.05):
            return self.quantity(label)
        head = self._noun(label, self.chance(0.3) if plural is None else plural)
        self._pre_modify(head)
        self._determine(head)
        return head

    def quantity(self, label: str) -> Node:
        """ "a group of people", "a cup of hot coffee": the first noun is the head."""
        if self.chance(0.6):
            head, inner = Node(self.pick("groups"), "NN", label), self._noun("pobj", True)
        else:
            head = Node(self.pick("parts"), "NN", label)
            mass = Node(self.pick("mass"), "NN", "pobj")
            inner = mass if self.chance(0.6) else self._noun("pobj", self.chance(0.6))
        if self.chance(0.25):
            head.left.append(Node(self.rng.choice(("large", "small", "big", "full")), "JJ", "amod"))
        self._determine(head)
        if self.chance(0.3):
            self._pre_modify(inner)
        return head.add(Node("of", "IN", "prep").add(inner))

    def coordinate(self, phrase: Node) -> None:
        """Append conjuncts, each hanging on the one before; behind "a photo of a dog" they join the dog."""
        last = phrase
        while (of := next((node for node in last.right if node.label == "prep"), None)) and of.right:
            last = of.right[0]
        for _ in range(self.rng.choice((0, 0, 1, 1, 2)) if self.chance(0.6) else 0):
            middle = self.noun_phrase("conj", self.chance(0.3))
            last.add(Node(",", ",", "punct"), middle)
            last = middle
        if last.label == "conj" and self.chance(0.4):
            last.add(Node(",", ",", "punct"))
        last.add(Node("and", "CC", "cc"), self.noun_phrase("conj", self.chance(0.3)))

    def _noun(self, label: str, several: bool) -> Node:
        compounds: list[str] = []
        draw = self.rng.random()
        if draw < 0.13:
            *compounds, form = self.pick("compounds").split()
        elif draw < 0.22:
            compounds, form = [self.singular(self.rng)], self._unverbal()
        elif draw < 0.24:
            compounds, form = [self.rng.choice(self.gerunds)], self._unverbal()
        elif draw < 0.42:
            form = self.rare(self.rng)
        elif several and draw < 0.7:
            return Node(self.plural(self.rng), "NNS", label)
        elif draw < 0.47:
            form = self.pick("everyday")
        else:
            form = self.singular(self.rng)
        if several and (not form.endswith("s") or form.endswith(("us", "ss"))):
            form = plural_of(form)
        tag = "NNS" if several else "NN"
        head = Node(form, tag, label, [Node(word, "NN", "compound") for word in compounds])
        if self.chance(0.02):
            head.left.insert(0, Node(self.rare(self.rng).capitalize(), "NNP", "compound"))
        return head

    def _unverbal(self) -> str:
        """A noun that is no verb as well: "sign stands" shall not be learnt as a compound."""
        noun = self.singular(self.rng)
        return noun if noun not in WORDS["verbal"] else self.rare(self.rng)

    def _pre_modify(self, head: Node) -> None:
        count = self.rng.choices((0, 1, 2, 3), (0.45, 0.38, 0.14, 0.03))[0]
        modifiers: list[Node] = []
        for _ in range(count):
            if modifiers and self.chance(0.15):
                modifiers.append(Node(",", ",", "punct"))
            modifiers.append(self._adjective())
        if count and self.chance(0.12):
            last = modifiers[-1] = Node(self.pick("colours"), "JJ", "amod")
            for _ in range(2 if self.chance(0.15) else 1):
                other = Node(self.pick("colours"), "JJ", "conj")
                last.add(Node("and", "CC", "cc"), other)
                last = other
        head.left[:0] = modifiers

    def _adjective(self) -> Node:
        draw = self.rng.random()
        if draw < 0.3:
            node = Node(self.pick("colours"), "JJ", "amod")
            if self.chance(0.2):
                shade = self.rng.choice(("light", "dark", "bright", "pale", "deep"))
                node.left.append(Node(shade, "JJ", "amod"))
            return node
        if draw < 0.8:
            common = self.chance(0.8)
            form = self.pick("adjectives") if common else self.rare_adjective(self.rng)
            node = Node(form, "JJ", "amod")
            if self.chance(0.08):
                adverb = self.rng.choice(("very", "extremely", "brightly", "really", "almost"))
                node.left.append(
                    Node(adverb if self.chance(0.7) else self.rare_adverb(self.rng), "RB", "advmod")
                )
            return node
        if draw < 0.94:
            form = self.pick("participles")
            return Node(form, "VBG" if form.endswith("ing") else "VBN", "amod")
        if draw < 0.97:
            noun, form = self.pick("noun_participles").split(":")
            return Node(form, "VBN", "amod", [Node(noun, "NN", "npadvmod")])
        first, second = self.pick("hyphenated").split(":")
        return Node(second, "JJ", "amod", [Node(first, "JJ", "amod"), Node("-", "HYPH", "punct")])

    def _determine(self, head: Node) -> None:
        several = head.tag == "NNS"
        if self.telegraphic or self.chance(0.35 if several else 0.08):
            return
        table = PLURAL if several else SINGULAR
        choices = self.rng.choices([c for _, c in table], [weight for weight, _ in table])[0]
        if not choices:
            owner = Node(self.rng.choice(("man", "woman", "dog", "person", "child", "cat")), "NN", "poss")
            owner.left.append(Node("a" if self.chance(0.7) else "the", "DT", "det"))
            head.left.insert(0, owner.add(Node("'s", "POS", "case")))
            return
        form, tag, label = self.rng.choice(choices)
        if form == "a" and (head.left[0].flatten()[0].form if head.left else head.form)[0] in "aeiou":
            form = "an"
        head.left.insert(0, Node(form, tag, label))
        if tag == "CD" and self.chance(0.06):
            head.left.insert(0, Node(self.rng.choice(("the", "these")), "DT", "det"))


def _sampler(weights: Counter[str]) -> Callable[[random.Random], str]:
    """Draws a word by weight in logarithmic time."""
    population, cumulative = list(weights), list(accumulate(weights.values()))
    return lambda rng: rng.choices(population, cum_weights=cumulative)[0]
