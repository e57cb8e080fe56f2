"""The demo corpus's vocabulary: nouns that are pictograms, and colours.

`icons.ttf` holds one glyph per noun; a noun's place in `NOUNS` is its code point after `FIRST_GLYPH`
(scripts/subset_icons.py makes the font from this table, so run it again after a change here).
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

FONT: Final = Path(__file__).with_name("icons.ttf")
FIRST_GLYPH: Final = 0xE000
FRAME: Final = "frame"  # drawn as an outline, not from the font
FRAME_WIDTH: Final = 3  # pixels

COLOURS: Final = {
    "red": (220, 40, 40),
    "green": (40, 180, 60),
    "blue": (50, 80, 230),
    "yellow": (235, 215, 40),
    "purple": (150, 50, 190),
    "white": (245, 245, 245),
    "orange": (240, 120, 20),
    "black": (20, 20, 20),
}


@dataclass(frozen=True, slots=True)
class Noun:
    """What captions call a pictogram. `names` are (singular, plural); the first one names the concept."""

    glyph: str  # in @mdi/font
    names: tuple[tuple[str, str], ...]


def _nouns(table: str) -> dict[str, Noun]:
    """One noun a line: glyph, then its names with '/' before an irregular plural."""
    nouns = {}
    for line in table.strip().splitlines():
        glyph, names = line.strip().split(": ")
        pairs = [name.split("/") for name in names.split(", ")]
        noun = Noun(glyph, tuple((pair[0], pair[1] if pair[1:] else pair[0] + "s") for pair in pairs))
        nouns[noun.names[0][0]] = noun
    return nouns


NOUNS: Final = _nouns("""
    dog-side: dog
    cat: cat
    car-side: car
    bus-side: bus/buses
    bicycle: bicycle, bike
    pine-tree: tree
    flower-tulip: flower
    home: house
    umbrella: umbrella
    coffee: cup, mug
    fish: fish/fish
    duck: duck
    horse-variant: horse
    cow: cow
    pig: pig
    sheep: sheep/sheep
    elephant: elephant
    rabbit: rabbit, bunny/bunnies
    penguin: penguin
    turtle: turtle
    snake: snake
    spider: spider
    bee: bee
    butterfly: butterfly/butterflies
    owl: owl
    kangaroo: kangaroo
    dolphin: dolphin
    airplane: airplane, plane
    helicopter: helicopter
    sail-boat: boat, sailboat
    train: train
    truck: truck, lorry/lorries
    tractor: tractor
    guitar-acoustic: guitar
    piano: piano
    trumpet: trumpet
    hammer: hammer
    wrench: wrench/wrenches, spanner
    axe: axe
    sword: sword
    key: key
    lock: lock, padlock
    bell: bell
    book-open-variant: book
    chair-rolling: chair
    sofa: sofa, couch/couches
    bed: bed
    table-furniture: table
    lamp: lamp
    clock: clock
    candle: candle
    food-apple: apple
    carrot: carrot
    cake-variant: cake
    pizza: pizza
    hamburger: hamburger, burger
    corn: corn/corn
    fruit-cherries: cherry/cherries
    fruit-pineapple: pineapple
    hat-fedora: hat
    shoe-sneaker: shoe, sneaker
    crown: crown
    star: star
    heart: heart
    cloud: cloud
    ghost: ghost
    robot: robot
    ladder: ladder
    bucket: bucket, pail
    anchor: anchor
    rocket: rocket
    leaf: leaf/leaves
    mushroom: mushroom
    bottle-wine: bottle
    camera: camera
    television: television, tv
    tent: tent
    flag: flag
    gift: gift, present
    pencil: pencil
    basketball: ball, basketball
    bone: bone
    traffic-light: traffic light
    teddy-bear: teddy bear
    fire-hydrant: fire hydrant
    ice-cream: ice cream
    palm-tree: palm tree
    kettle: kettle
    snowman: snowman/snowmen
    trophy: trophy/trophies
""")
NAMES: Final = {name: noun for noun, entry in NOUNS.items() for pair in entry.names for name in pair} | {
    FRAME: FRAME,
    FRAME + "s": FRAME,
}


@cache
def _font() -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(FONT, 192)


@cache
def _ink(noun: str) -> Image.Image:
    """The glyph's own rectangle, large, mode L."""
    glyph = chr(FIRST_GLYPH + list(NOUNS).index(noun))
    canvas = Image.new("L", (256, 256))
    ImageDraw.Draw(canvas).text((32, 32), glyph, font=_font(), fill=255)
    return canvas.crop(canvas.getbbox())


@cache
def mask(noun: str, side: int) -> Image.Image:
    """Coverage (mode L) of a pictogram whose longer side is `side` pixels; its ink touches all four edges."""
    if noun == FRAME:
        frame = np.full((side, side), 255, np.uint8)
        frame[FRAME_WIDTH:-FRAME_WIDTH, FRAME_WIDTH:-FRAME_WIDTH] = 0
        return Image.fromarray(frame)
    ink = _ink(noun)
    scale = side / max(ink.size)
    return ink.resize(
        (max(1, round(ink.width * scale)), max(1, round(ink.height * scale))), Image.Resampling.BOX
    )
