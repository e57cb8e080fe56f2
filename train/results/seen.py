"""One sample of a store as training would see it: the crop, the masked patches and words, hard negatives, siblings."""

import base64
import io
import threading
from dataclasses import replace
from functools import cached_property
from typing import Any, Final

import numpy as np
import torch
from PIL import Image

from macco.pipeline.errors import UserError
from macco.pipeline.page.tables import Tables
from macco.pipeline.query import connect
from macco.pipeline.schema import NEGATIVE_KINDS, NEGATIVES, OK, UNITS
from macco.pipeline.store import Store
from macco.train.clip.load import load_start
from macco.train.config import TrainConfig
from macco.train.data.crops import BrokenImageError
from macco.train.data.index import Index
from macco.train.data.recipe import Recipe
from macco.train.data.rows import Fetch
from macco.train.data.selection import Selection
from macco.train.objectives.objective import load_objective

_SAID: Final = {NEGATIVES: "hard negatives", UNITS: "units"}


class Seen:
    """Draws samples of `store`, of the boxes chosen, under a configuration. No run, and no weights, are needed.

    The model is built when the first sample is asked for: its sizes, and its tokenizer.
    """

    def __init__(self, config: TrainConfig, store: Store) -> None:
        self._data = replace(
            config.data, store=store.url, detector=store.boxes_of or store.detector, workers=0
        )
        # What is seen depends on no weight: those that nobody has here are not asked for.
        model = replace(config.model, pretrained="", predictors="")
        self._config = replace(config, data=self._data, model=model)
        self._tables = Tables(store)
        self._store = store
        self._lock = threading.Lock()  # one sample after the other: the fetch has one connection

    def __call__(self, sample: str, seed: int) -> dict[str, Any]:
        """One draw of a sample, ready for JSON; raises UserError where it is not trained on, or no crop of it."""
        with self._lock:
            return self._draw(sample, seed)

    def _draw(self, name: str, seed: int) -> dict[str, Any]:
        recipe, tokenizer = self._recipe
        selection = Selection.of(self._data.where, recipe.masks, self._data.keep)
        index = self._row(name)
        recipe, units, lacks = self._made(recipe, index.shards[0])
        fetch = Fetch(
            self._data, index, selection, recipe.negatives, recipe.box_score, units=units, siblings=True
        )
        sample = fetch([0], seed, 0)[0]
        try:
            batch: Any = recipe.collate([recipe.make(sample, np.random.default_rng(seed))])
        except BrokenImageError as error:
            raise UserError(f"{name} is passed over in training: {error}") from error
        words, tokens = getattr(batch, "text_mask", None), batch.tokens[0].tolist()
        patches = getattr(batch, "patch_mask", None)
        masked = [False] * len(tokens) if words is None else words[0].tolist()
        decode = getattr(tokenizer, "tokenizer", tokenizer).decode
        texts = [(decode([token]).strip(), hidden) for token, hidden in zip(tokens, masked, strict=True)]
        grid = 1 if patches is None else round(patches.shape[1] ** 0.5)
        return {
            "image": png(batch.images[0]),
            "grid": grid,
            "patches": [False] if patches is None else patches[0].tolist(),
            "tokens": [
                {"text": text, "masked": hidden} for text, hidden in texts if not text.startswith(("<", "!"))
            ],
            "negatives": [
                {"kind": kind, "caption": caption}
                for kind, caption in zip(NEGATIVE_KINDS, sample.negatives, strict=False)
                if caption is not None
            ],
            "siblings": sample.siblings,
            "paraphrases": sample.paraphrases if recipe.reads_siblings else [],
            "lacks": lacks,
        }

    def _made(self, recipe: Recipe, shard: str) -> tuple[Recipe, bool, list[str]]:
        """The recipe with what the store has for it, whether it has units, and what training would ask for first."""
        read = {NEGATIVES: recipe.negatives > 0, UNITS: recipe.reads_units}
        lacking = [
            table for table in read if read[table] and shard not in self._store.names(".parquet", table)
        ]
        lacks = [
            f"there are no {_SAID[table]} of this shard yet: macco-train {table} {self._store.url}"
            for table in lacking
        ]
        recipe = replace(recipe, negatives=0) if NEGATIVES in lacking else recipe
        return recipe, recipe.reads_units and UNITS not in lacking, lacks

    @cached_property
    def _recipe(self) -> tuple[Recipe, Any]:
        if not self._config.settings.crops:
            raise UserError(
                f"with these settings {self._config.objective} reads features of whole images: there is no crop to see"
            )
        start, cpu = load_start(self._config.model, self._config.seed), torch.device("cpu")
        objective = load_objective(self._config)
        model = objective.model(start.model)
        return objective.recipe(model, start.tokenizer, self._data, cpu, lambda line: None), start.tokenizer

    def _row(self, name: str) -> Index:
        """The index of a training set of this one sample."""
        found = None
        for shard in self._store.committed():
            if found is None and f"/{shard}/" in name:
                rows = self._tables.of([shard])["samples"]
                with connect(self._store, views=False, sealed=True) as connection:
                    sql = f"SELECT shard, row, status FROM {rows} WHERE sample_id = ?"
                    found = connection.execute(sql, [name]).fetchone()
        if found is None:
            raise UserError(f"no sample {name!r} in this store")
        if found[2] != OK:
            raise UserError(f"{name} is not trained on: its status is {found[2]}")
        one = np.ones(1, np.int64)
        return Index(
            shards=(found[0],),
            files=(self._tables.file(found[0]),),
            bits=np.packbits(one.astype(np.bool_)),
            first_bit=0 * one,
            shard=(0 * one).astype(np.int32),
            first_row=(found[1] * one).astype(np.int32),
            starts=np.array([0, 1], np.int64),
            fingerprint="",
        )


def png(image: torch.Tensor) -> str:
    """Pixels [3, S, S] as the address of a picture."""
    out = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
