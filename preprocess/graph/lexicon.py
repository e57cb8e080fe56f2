"""Closed classes of English words that the repairs go by."""

from itertools import product
from typing import Final


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


HYPHENS: Final = _set("- ‐ ‑")
BE: Final = _set("be is are was were am been being 's 're ’s ’re")
DETERMINERS: Final = _set("a an the this that these those his her its their my your our")
NEGATIONS: Final = _set("not n't n’t never")
# What stands for things that are not there.
NOBODY: Final = _set("nobody none nothing no-one")
LACKING: Final = _set("without instead")
# Adjectives of lack: "a road free of cars".
EMPTY: Final = _set("free devoid void empty bare clear")
# What is called by its order: "a do not enter sign".
SIGNS: Final = _set("sign signs signal signals light lights symbol symbols")
DEFINITE: Final = _set("the this that these those his her its their my your our")
RELATIVES: Final = _set("who whom which that")
PARTICLES: Final = _set("up down out off over back away around along together through")
# Adverbs in front of an adjective that do not say how much or how.
NO_DEGREE: Final = _set(
    "also just still only even not now then there here always already both neither nor longer when while where"
)
SHADES: Final = _set("light dark bright pale deep pastel neon hot vivid dull lime navy royal sky")
COLOURS: Final = _set(
    "red green blue yellow orange purple pink brown black white gray grey teal cyan magenta beige tan "
    "maroon turquoise violet gold silver"
)
# Participles that only an adjective in front gives a meaning: "a nice looking shirt".
LOOKS: Final = _set("looking colored coloured shaped sized sleeved haired faced legged tiered patterned")
# What "of" follows without making an object of its own: "a group of people", "one of the dogs".
QUANTITIES: Final = _set(
    "group groups pair pairs bunch bunches couple lot lots number numbers dozen dozens herd herds flock flocks "
    "crowd set sets variety array assortment collection multitude handful series trio plenty pack team "
    "one two three four five six seven eight nine ten some many most all several few each both none neither either"
)
# Words that count what follows, and that taggers take for a part of its name: "a dozen eggs in a box".
COUNTS: Final = _set("dozen hundred thousand million")
# Nouns whose members act: in "a row of bottles on a shelf" the bottles are on it.
ROWS: Final = _set(
    "row rows line lines stack stacks pile piles cluster clusters bundle bundles circle column"
)
# Verbs of posture that taggers take for nouns, by their lemma: "the bus stands in front of a train".
POSTURES: Final = _set("stand sit hide lie rest lean hang float wait fly")
# Verbs, by their lemma, of what only the living do.
ACTS: Final = _set(
    "wear hold carry ride eat drink throw toss catch kick swing watch look stare feed pet brush chew lick bite sip "
    "hug kiss smoke smile laugh talk walk pose hit juggle"
)
# Participles of how somebody is, not of what is done to a thing: "a man holding a cup seated on a bench".
POSED: Final = _set("seated dressed perched crouched clad")
# What is done to whoever does something else: "a man holding a bag surrounded by people".
ESCORTING: Final = _set("surround follow accompany flank watch")
# Verbs that bring their object to a place, by their lemma: "puts a plate on the table".
PLACING: Final = _set(
    "put place set lay hang stick load pack stack pour sprinkle spread drop insert mount attach tie store dip "
    "arrange install park plug squeeze drizzle tuck fit scatter"
)
# Verbs that send their object somewhere: "throws a ball at a wall", but "throws a ball in the park".
SENDING: Final = _set("throw toss kick hit swing shoot aim fling hurl point roll bounce pass")
# Prepositions of what such an object goes at, or by: "kicks the ball past the goalie".
PASSING: Final = _set("at across through past")
# Prepositions that say where the object of a verb goes or comes from: "a boy kicking a ball into the goal".
AIMED: Final = _set("into onto to toward towards over from off")
# Prepositions of place: where something is put, or held.
PLACES: Final = _set("in on under above below against around behind beside between near inside across by at")
BODY: Final = _set(
    "hand arm mouth head face ear nose eye neck shoulder back lap chest leg knee foot hip waist wrist finger hair "
    "beak bill jaw tooth tongue paw trunk tail claw snout fist palm lip chin cheek side wing"
)
# The commonest nouns of people and animals, by their lemma.
PEOPLE: Final = _set(
    "man woman boy girl child kid baby toddler infant person people guy lady gentleman adult player batter catcher "
    "pitcher umpire skier surfer skater skateboarder snowboarder rider biker cyclist jockey cowboy officer policeman "
    "fireman soldier worker chef cook waiter waitress student teacher couple family friend bride groom mother father "
    "mom dad son daughter brother sister teenager teen male female tourist passenger pedestrian driver dancer "
    "clown someone"
)
ALIVE: Final = PEOPLE | _set(
    "cat kitten dog puppy horse pony foal zebra cow bull calf sheep lamb goat pig elephant giraffe bear cub bird duck "
    "goose chicken seagull pigeon parrot owl eagle monkey gorilla lion lioness tiger deer rabbit squirrel mouse fish"
)
# Nouns that only say where: "a cat on the left", "a cake with candles on top".
WHERE: Final = _set("top bottom front back left right side sides middle center centre")

# Verbs that rarely have an object, as in "baby standing giraffe".
ALONE: Final = _set("stand sit lie walk run kneel graze smile sleep talk laugh jump live park dine")
# Adjectives that are the object of a preposition as they are: "in public", "each other".
BARE: Final = _set("other high low public general large last first full short")
# Past participles that look like the infinitive.
SAME: Final = _set("put cut hit set run come become let shut read split spread")

# Prepositions of several words: "next to", "in front of", "on the left side of".
_FIXED = (
    "next to, close to, near to, far from, far away from, away from, out of, inside of, outside of, ahead of, "
    "in between, across from, because of, instead of, along with, together with, up against, adjacent to, "
    "opposite to, up to, down from, off of, as part of, in addition to"
)
_PLACED = product(
    _set("in on at to from by near along toward towards off"),
    ["", "the", "a", "an", "each", "both", "either", "opposite"],
    ["", "left", "right", "left-hand", "other", "far", "near", "front", "back", "very", "top", "bottom"],
    _set(
        "front back rear left right top bottom side sides middle center centre edge corner end inside outside"
    ),
    ["of"],
)
PREPOSITIONS: Final = frozenset(
    [tuple(phrase.split()) for phrase in _FIXED.split(", ")]
    + [tuple(filter(None, words)) for words in _PLACED]
)
# The last word of each, and how many words it may have, longest first.
PREPOSITION_LENGTHS: Final = {
    last: sorted({len(words) for words in PREPOSITIONS if words[-1] == last}, reverse=True)
    for last in sorted({words[-1] for words in PREPOSITIONS})
}
