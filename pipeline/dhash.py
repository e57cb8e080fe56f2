"""The difference hash by which both stages know an image again."""

import numpy as np
from PIL import Image
from PIL.Image import Resampling


def dhash(image: Image.Image) -> int:
    """Return the 64-bit difference hash: bit 63 - (8 row + column) says "brighter to the right".

    The same as `imagehash.dhash`, so that hashes of other tools can be compared.
    """
    small = np.asarray(image.convert("L").resize((9, 8), Resampling.LANCZOS))
    return int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes(), "big")
