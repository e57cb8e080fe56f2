"""Captions that a tokenizer cuts, and concepts beyond, are those that one finds by looking at each."""

import json
from pathlib import Path

import open_clip
import pytest
from typer.testing import CliRunner

from macco.pipeline.errors import UserError
from macco.pipeline.query import connect
from macco.pipeline.store import Store
from macco.preprocess.cli import app
from macco.preprocess.look.lengths import cuts


@pytest.mark.parametrize("context", [8, 13, 77])
def test_cuts_are_those_of_each_caption(store: Store, context: int, tmp_path: Path) -> None:
    config = open_clip.get_model_config("ViT-B-32")
    config["text_cfg"]["context_length"] = context
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    found = cuts(store, f"local-dir:{tmp_path}")

    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    with connect(store) as connection:
        captions = dict(
            connection.execute("SELECT sample_id, caption FROM samples WHERE status = 'ok'").fetchall()
        )
        starts = connection.execute("SELECT sample_id, start FROM concepts WHERE part = 0").fetchall()
    tokens = {name: tokenizer.encode(caption) for name, caption in captions.items()}
    cut = {name for name, ids in tokens.items() if len(ids) + 2 > context}
    # The captions are plain: what is kept is as long as it stands there.
    kept = {name: captions[name].lower() for name in cut}
    for name in cut:
        while len(tokenizer.encode(kept[name])) > context - 2:
            kept[name] = kept[name][:-1]
    beyond = sum(name in cut and start >= len(kept[name].rstrip()) for name, start in starts)
    assert found == {
        "tokenizer": f"local-dir:{tmp_path}", "max_tokens": context, "captions": len(captions), "cut": len(cut),
        "share": round(len(cut) / len(captions), 6), "concepts beyond": beyond,
    }  # fmt: skip
    assert (len(cut) > 0) == (context < 77)


def test_status_says_it_and_refuses_what_has_no_tokenizer(store: Store, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["status", store.url, "--tokenizer", "ViT-B-32", "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["tokens"]["max_tokens"] == 77
    for wrong in ("ViT-B-3", f"local-dir:{tmp_path}"):
        with pytest.raises(UserError, match="open_clip has no"):
            cuts(store, wrong)
