"""The comparisons that decide, on plain score arrays. A strict rule calls a tie wrong."""

from macco.train.evaluation.judged import Bools, Floats


def first_best(scores: Floats) -> dict[str, Bools]:
    """Whether option 0 of scores [N, C] wins: strictly ("right"), with ties as wins ("lenient"), tied ("tie")."""
    best_other = scores[:, 1:].max(axis=1)
    return {
        "right": scores[:, 0] > best_other,
        "lenient": scores[:, 0] >= best_other,
        "tie": scores[:, 0] == best_other,
    }


def two_by_two(scores: Floats) -> dict[str, Bools]:
    """Winoground's three questions on scores [N, image, caption], where image i belongs to caption i.

    text: each image prefers its caption. image: each caption prefers its image. group: both.
    """
    own = scores[:, 0, 0], scores[:, 1, 1]
    other_text = scores[:, 0, 1], scores[:, 1, 0]  # the same image with the other caption
    text = (own[0] > other_text[0]) & (own[1] > other_text[1])
    image = (own[0] > other_text[1]) & (own[1] > other_text[0])
    tie = (own[0] == other_text[0]) | (own[1] == other_text[1])
    tie |= (own[0] == other_text[1]) | (own[1] == other_text[0])
    return {"text": text, "image": image, "group": text & image, "tie": tie}
