"""Trees of words with gold tags and labels, and the Docs that they make."""

from dataclasses import dataclass, field

from spacy.tokens import Doc
from spacy.vocab import Vocab

NO_SPACE_BEFORE = frozenset({",", ".", "'s", "-"})


@dataclass(slots=True)
class Node:
    """A word with its dependents on both sides, in reading order."""

    form: str
    tag: str
    label: str
    left: list["Node"] = field(default_factory=list)
    right: list["Node"] = field(default_factory=list)

    def add(self, *nodes: "Node") -> "Node":
        self.right.extend(nodes)
        return self

    def flatten(self) -> list["Node"]:
        before = [word for node in self.left for word in node.flatten()]
        return [*before, self, *(word for node in self.right for word in node.flatten())]

    @property
    def several(self) -> bool:
        """Whether a verb agrees with it in the plural."""
        return self.tag in {"NNS", "CD"} or any(child.label == "cc" for child in self.right)


def to_doc(root: Node, vocab: Vocab, *, capital: bool, upper: bool) -> Doc:
    """The sentence below `root`, with a capital first letter or all in capitals."""
    nodes = root.flatten()
    place = {id(node): i for i, node in enumerate(nodes)}
    heads = list(range(len(nodes)))
    for node in nodes:
        for child in (*node.left, *node.right):
            heads[place[id(child)]] = place[id(node)]
    forms = [node.form.upper() if upper else node.form for node in nodes]
    if capital:
        forms[0] = forms[0][0].upper() + forms[0][1:]
    after = [*forms[1:], "."]
    return Doc(
        vocab,
        words=forms,
        spaces=[a != "-" and b not in NO_SPACE_BEFORE for a, b in zip(forms, after, strict=True)],
        tags=[node.tag for node in nodes],
        heads=heads,
        deps=[node.label for node in nodes],
    )
