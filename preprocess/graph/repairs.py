"""What SceneGraphParser's rules miss, repaired by editing the parse before they read it.

Each repair is a function over a sentence that says with an example what it does. A word that another
absorbed is out of the rules' sight but keeps its place in the caption.
"""

from collections.abc import Callable
from typing import Final

from macco.preprocess.graph import clauses, negation, ones, phrases, places, rows, tags
from macco.preprocess.graph.words import Sentence

# Later ones build on earlier ones.
REPAIRS: Final[tuple[Callable[[Sentence], None], ...]] = (
    phrases.join_hyphens,
    phrases.name_signs,
    ones.tell_apart,
    tags.part_lacks,
    tags.part_possessions,
    rows.join_adjectives,
    tags.correct_tags,
    tags.free_subjects,
    tags.part_verbs,
    clauses.join_prepositions,
    clauses.stack_prepositions,
    clauses.join_alternatives,
    clauses.turn_locatives,
    rows.split_rows,
    phrases.see_through_quantities,
    phrases.join_looks,
    phrases.join_compounds,
    phrases.join_degrees,
    phrases.keep_participles,
    rows.flatten_conjuncts,
    places.seat_members,
    rows.share_modifiers,
    clauses.join_particles,
    clauses.resolve_relatives,
    clauses.relate_others,
    clauses.turn_passives,
    clauses.open_copulas,
    negation.deny,
    clauses.attach_predicates,
    clauses.find_subjects,
    places.seat_participles,
    places.join_limbs,
    places.move_objects,
    clauses.resolve_pronouns,
    clauses.join_verbs,
    phrases.find_chunks,
)


def repair(sentence: Sentence) -> None:
    """Edit the sentence in place and give it its noun chunks."""
    for mend in REPAIRS:
        mend(sentence)
