"""What SceneGraphParser's rules miss, repaired by editing the parse before they read it.

Each repair is a function over a sentence that says with an example what it does. A word that another
absorbed is out of the rules' sight but keeps its place in the caption.
"""

from collections.abc import Callable
from typing import Final

from macco.preprocess.graph import clauses, phrases
from macco.preprocess.graph.words import Sentence

# Later ones build on earlier ones.
REPAIRS: Final[tuple[Callable[[Sentence], None], ...]] = (
    phrases.join_hyphens,
    phrases.correct_tags,
    phrases.part_verbs,
    clauses.join_prepositions,
    clauses.stack_prepositions,
    phrases.see_through_quantities,
    phrases.join_compounds,
    phrases.join_degrees,
    phrases.flatten_conjuncts,
    phrases.share_modifiers,
    clauses.join_particles,
    clauses.resolve_relatives,
    clauses.turn_passives,
    clauses.open_copulas,
    clauses.attach_predicates,
    clauses.find_subjects,
    clauses.join_verbs,
    phrases.find_chunks,
)


def repair(sentence: Sentence) -> None:
    """Edit the sentence in place and give it its noun chunks."""
    for mend in REPAIRS:
        mend(sentence)
