"""The texts beside a store's captions that a recipe reads: whether each shard has them, and which they are."""

from macco.pipeline.errors import UserError
from macco.pipeline.query import connect
from macco.pipeline.schema import NEGATIVE_KINDS, NEGATIVES, OK, PARAPHRASES, UNITS
from macco.pipeline.store import Store
from macco.train.data.index import digest
from macco.train.data.recipe import Recipe


def made_texts(store: Store, recipe: Recipe) -> dict[str, str]:
    """A digest of each table of texts that `recipe` reads, by the sizes of its files.

    Raises UserError where there are none, or none of some shards: rows have come or changed since they were made.
    """
    if not 0 <= recipe.negatives <= len(NEGATIVE_KINDS):
        raise UserError(f"{recipe.negatives} negatives per caption: there are {len(NEGATIVE_KINDS)} kinds")
    paraphrased = recipe.reads_siblings and store.exists(PARAPHRASES)
    if recipe.reads_siblings and not (paraphrased or _siblings(store)):
        raise UserError(
            f"no image of {store.url} has a second caption: an objective that reads another needs it, or paraphrases "
            f"made elsewhere (macco-train import-texts {store.url} FILE)"
        )
    tables = {
        NEGATIVES: ("hard negatives", recipe.negatives > 0, f"negatives {store.url}"),
        UNITS: ("units", recipe.reads_units, f"units {store.url}"),
        PARAPHRASES: ("paraphrases", paraphrased, f"import-texts {store.url} FILE"),
    }
    found = dict[str, str]()
    for table, (what, read, command) in tables.items():
        if not read:
            continue
        sizes, shards = store.sizes(table, ".parquet"), store.committed()
        if without := shards - sizes.keys():
            raise UserError(
                f"{store.url} has no {what} of {len(without)} shards, such as {min(without)}: "
                f"make them with: macco-train {command}"
            )
        found[table] = digest([(shard, sizes[shard]) for shard in sorted(shards)])
    return found


def _siblings(store: Store) -> bool:
    """Whether any image of the store has more than one caption."""
    with connect(store, views=("samples",)) as connection:
        found = f"SELECT 1 FROM samples WHERE caption_id > 0 AND status = '{OK}' LIMIT 1"
        return connection.execute(found).fetchone() is not None
