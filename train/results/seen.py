"""One sample of a store as a run's recipe makes it: the crop, the masked patches and words, the hard negatives."""

import base64
import io
import threading
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image

from macco.pipeline.errors import UserError
from macco.pipeline.page.tables import Tables
from macco.pipeline.query import connect
from macco.pipeline.schema import NEGATIVE_KINDS, OK
from macco.pipeline.store import Store
from macco.train.clip.load import load_start
from macco.train.config import TrainConfig
from macco.train.data.crops import BrokenImageError
from macco.train.data.index import Index
from macco.train.data.recipe import Recipe
from macco.train.data.rows import Fetch
from macco.train.data.selection import Selection
from macco.train.objectives.objective import load_objective


class Seen:
    """Draws samples of `store` under a run's configuration. The model is loaded when the first is asked for."""

    def __init__(self, config: TrainConfig, store: Store) -> None:
        self._data = replace(config.data, store=store.url, workers=0)
        self._config = replace(config, data=self._data)
        self._tables = Tables(store)
        self._store = store
        self._lock = threading.Lock()  # one sample after the other: the fetch has one connection

    def __call__(self, sample: str, seed: int) -> dict[str, Any]:
        """One draw of a sample, ready for JSON; raises UserError where it is not trained on."""
        with self._lock:
            return self._draw(sample, seed)

    def _draw(self, name: str, seed: int) -> dict[str, Any]:
        recipe, tokenizer = self._recipe
        selection = Selection.of(self._data.where, recipe.masks, self._data.keep)
        fetch = Fetch(self._data, self._row(name), selection, recipe.negatives, recipe.box_score)
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
        }

    @cached_property
    def _recipe(self) -> tuple[Recipe, Any]:
        start, cpu = load_start(self._config.model, self._config.seed), torch.device("cpu")
        objective = load_objective(self._config)
        model = objective.model(start.model)
        recipe = objective.recipe(model, start.tokenizer, self._data, cpu, lambda line: None)
        if not self._store.exists("negatives"):
            recipe = replace(recipe, negatives=0)
        return recipe, start.tokenizer

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
