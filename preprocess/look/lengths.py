"""How many captions a model's tokenizer cuts."""

from typing import Any

from macco.pipeline.errors import UserError
from macco.pipeline.query import connect
from macco.pipeline.schema import OK
from macco.pipeline.store import Store
from macco.pipeline.tokens import Tokenize

ROWS = 10_000  # captions that are looked at together

# A token has a byte at least: most captions need no second look. A concept begins with its first part.
_LONG = f"""
    SELECT caption, list(start) FILTER (start IS NOT NULL) FROM samples
    LEFT JOIN concepts ON concepts.sample_id = samples.sample_id AND part = 0
    WHERE status = '{OK}' AND octet_length(encode(caption)) > ? GROUP BY samples.sample_id, caption"""


def cuts(store: Store, name: str) -> dict[str, Any]:
    """Captions with more tokens than a model reads, their share of all, and concepts that lie wholly beyond.

    name: a model of open_clip's, or local-dir:FOLDER. Raises UserError where it has no tokenizer for it.
    """
    import open_clip

    if ":" not in name and name not in open_clip.list_models():  # open_clip would take a tokenizer of its own
        raise UserError(f"open_clip has no model {name!r}; it has, for example, ViT-B-32, ViT-L-14")
    try:
        tokenize = Tokenize(open_clip.get_tokenizer(name))
    except (AssertionError, OSError, ValueError, RuntimeError, ImportError) as error:
        raise UserError(f"open_clip has no tokenizer for {name!r}: {error or 'no such model'}") from error
    cut = beyond = 0
    with connect(store, views=("samples", "concepts")) as connection:
        total = connection.execute(f"SELECT count(*) FROM samples WHERE status = '{OK}'").fetchall()[0][0]
        found = connection.execute(_LONG, [tokenize.context - 2])
        while rows := found.fetchmany(ROWS):
            for caption, starts in rows:
                if (tokens := tokenize(caption)).cut:
                    cut += 1
                    beyond += sum(tokens.beyond([(start, start)]) for start in starts or ())
    return {
        "tokenizer": name,
        "max_tokens": tokenize.context,
        "captions": total,
        "cut": cut,
        "share": round(cut / total, 6) if total else 0.0,
        "concepts beyond": beyond,
    }
