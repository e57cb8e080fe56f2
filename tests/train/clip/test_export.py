"""What goes out computes the same features elsewhere; what comes in computes the same here."""

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from macco.pipeline.errors import UserError
from macco.train.clip.convert import import_clip, import_training, read_state
from macco.train.clip.write import export_hugging_face, export_open_clip, uses_quick_gelu
from macco.train.loop.optimizer import parameter_groups
from macco.train.objectives.macco.model import Macco
from tests.support.tiny import SIZE, tiny_batch, tiny_clip, tiny_macco


@pytest.mark.parametrize("quick", [True, False])
def test_open_clip_loads_the_export(quick: bool, tmp_path: Path) -> None:
    clip, batch = tiny_clip(quick_gelu=quick).float(), tiny_batch()
    export_open_clip(clip, tmp_path / "out", config=None)
    loaded, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'out'}")
    assert uses_quick_gelu(loaded) == quick
    assert f"size={SIZE}" in str(preprocess)
    with torch.no_grad():
        torch.testing.assert_close(loaded.encode_text(batch.tokens), clip.encode_text(batch.tokens))
        images = batch.images.float()
        torch.testing.assert_close(loaded.encode_image(images), clip.encode_image(images))


def test_a_wrong_activation_on_record_is_put_right(tmp_path: Path) -> None:
    clip = tiny_clip(quick_gelu=True)
    export_open_clip(clip, tmp_path / "right")
    config = json.loads((tmp_path / "right/open_clip_config.json").read_text())["model_cfg"]
    export_open_clip(clip, tmp_path / "out", config | {"quick_gelu": False})
    assert json.loads((tmp_path / "out/open_clip_config.json").read_text())["model_cfg"] == config


@pytest.mark.slow
@pytest.mark.parametrize("quick", [True, False])
def test_hugging_face_loads_the_export(quick: bool, tmp_path: Path) -> None:
    from transformers import CLIPModel, CLIPProcessor

    text: dict[str, Any] = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
    clip = tiny_clip(quick_gelu=quick, text_cfg=text).float()
    export_hugging_face(clip, tmp_path)
    loaded, processor = CLIPModel.from_pretrained(tmp_path).eval(), CLIPProcessor.from_pretrained(tmp_path)
    captions = ["A red dog's bowl is on 2 small sofas.", "grass, eating a horse!"]
    tokens = open_clip.SimpleTokenizer()(captions)
    words = processor(text=captions, padding="max_length", return_tensors="pt")
    images = tiny_batch().images[:2].float()
    with torch.no_grad():
        out = loaded(**words, pixel_values=images)
        for found, own in (
            (out.text_embeds, clip.encode_text(tokens, normalize=True)),
            (out.image_embeds, clip.encode_image(images, normalize=True)),
        ):
            assert (found - own).abs().max() <= 1e-5


def public_state(model: Macco) -> dict[str, torch.Tensor]:
    """The parameters by the public code's names, its second logit scale included."""
    state = {name.replace("clip.", "CLIP.", 1): value for name, value in model.state_dict().items()}
    state["img_mask_token"] = state.pop("image_mask_token")
    state["logit_scale"] = state["CLIP.logit_scale"]
    state["CLIP.logit_scale"] = torch.zeros(())
    return state


@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_a_public_checkpoint_comes_back(kind: str, tmp_path: Path) -> None:
    model, path = tiny_macco(), tmp_path / f"epoch.{kind}"
    state = public_state(model)
    if kind == "pt":
        torch.save(
            {"epoch": 5, "name": "x", "state_dict": {f"module.{k}": v for k, v in state.items()}}, path
        )
    else:
        save_file({k: v.contiguous() for k, v in state.items()}, path)
    found = read_state(path)
    clip, config = import_clip(found, quick_gelu=False, text_heads=2, vision_heads=2)
    assert config["vision_cfg"]["image_size"] == SIZE
    other = tiny_macco(clip.double())
    torch.nn.init.zeros_(other.text_mask_token)
    import_training(other, found)
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


def test_what_transformers_cannot_pool_is_refused(tmp_path: Path) -> None:
    vision = {"image_size": SIZE, "patch_size": 4, "width": 24, "head_width": 12, "layers": 2}
    clip = tiny_clip(vision_cfg=vision | {"pool_type": "avg"})
    with pytest.raises(UserError, match=r"class token pooled.*export to open_clip"):
        export_hugging_face(clip, tmp_path)


def test_a_foreign_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no checkpoint at"):
        read_state(tmp_path / "none.pt")
    (tmp_path / "junk.pt").write_bytes(b"junk")
    with pytest.raises(UserError, match="no checkpoint of tensors"):
        read_state(tmp_path / "junk.pt")
    with pytest.raises(UserError, match=r"visual\.conv1\.weight"):
        import_clip({"weight": torch.zeros(2)}, quick_gelu=True)
    with pytest.raises(UserError, match="does not fit"):
        import_training(tiny_macco(), public_state(tiny_macco(text_depth=1)))


def test_logit_scale_belongs_to_clip_and_is_never_decayed() -> None:
    model = tiny_macco()
    groups = {
        g["name"]: g
        for g in parameter_groups(model, lr=1e-6, predictor_lr=1e-3, decay=0.2, predictor_decay=0.01)
    }
    assert any(p is model.clip.logit_scale for p in groups["clip_gains"]["params"])
    assert groups["clip_gains"]["weight_decay"] == 0
    assert all(p.ndim >= 2 for p in groups["clip"]["params"])
    grouped = [p for group in groups.values() for p in group["params"]]
    assert len(grouped) == len(set(grouped)) == len(list(model.parameters()))
    model.clip.logit_scale.data.fill_(7.0)
    model.after_step()
    assert model.clip.logit_scale.exp().item() == pytest.approx(100)
