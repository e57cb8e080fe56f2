"""Make preprocess/demo/icons.ttf: the glyphs of the demo corpus, out of npm's @mdi/font (Apache-2.0).

npm pack @mdi/font@7.4.47 && tar xf mdi-font-7.4.47.tgz
python scripts/subset_icons.py package/fonts/materialdesignicons-webfont.ttf
"""

import argparse
from pathlib import Path

from fontTools.subset import Options, Subsetter
from fontTools.ttLib import TTFont

from macco.preprocess.demo.icons import FIRST_GLYPH, FONT, NOUNS


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("font", type=Path, help="materialdesignicons-webfont.ttf")
    font = TTFont(arguments.parse_args().font, recalcTimestamp=False)
    glyphs = [noun.glyph for noun in NOUNS.values()]
    for table in font["cmap"].tables:
        table.cmap = {FIRST_GLYPH + place: glyph for place, glyph in enumerate(glyphs)}
    subsetter = Subsetter(Options(hinting=False, name_IDs=[0, 1, 2, 13, 14]))
    subsetter.populate(unicodes=range(FIRST_GLYPH, FIRST_GLYPH + len(glyphs)))
    subsetter.subset(font)
    font.save(FONT)
    print(f"{FONT}: {len(glyphs)} glyphs, {FONT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
