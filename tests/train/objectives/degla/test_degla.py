"""DeGLA: its losses against the authors' numbers; and the teacher, which any objective may have."""

from dataclasses import replace

import pytest
import torch

from macco.pipeline.errors import UserError
from macco.train.config import DistillConfig
from macco.train.layers import parse, preset, resolve
from macco.train.losses.distillation import distillation
from macco.train.objectives.degla.model import DeglaModel
from macco.train.objectives.degla.settings import DeglaConfig
from tests.check_vectors import check
from tests.support import DATA
from tests.support.objective_batches import hard_batch
from tests.support.tiny import tiny_clip


def test_losses_and_gradients_are_the_authors() -> None:
    rows = check(DATA / "vectors" / "degla.safetensors")
    assert len(rows) == 3 * (4 + 4 * 3)
    assert [row for row in rows if not row.error <= 1e-9] == []


def model(**switches: object) -> DeglaModel:
    return DeglaModel(tiny_clip(), DeglaConfig(negatives=3, **switches))  # type: ignore[arg-type]


def test_a_student_at_its_start_is_where_its_teacher_is() -> None:
    found = model()
    found.teach(DistillConfig(weight=0.5))
    losses = found(hard_batch())
    assert losses["distillation"].item() == pytest.approx(0, abs=1e-20)
    expected = losses["contrast"] + 0.1 * losses["image_grounded"] + 0.1 * losses["text_grounded"]
    assert losses["loss"].item() == pytest.approx(expected.item(), rel=1e-9)


def test_an_averaged_teacher_follows_and_is_in_the_state_a_frozen_one_does_neither() -> None:
    averaged, frozen = model(), model()
    averaged.teach(DistillConfig(weight=1, decay=0.75))
    frozen.teach(DistillConfig(weight=1, teacher="frozen"))
    assert frozen.state_dict().keys() == model().state_dict().keys()
    assert averaged.new_state() == set()
    start = averaged.clip.token_embedding.weight.clone()
    for each in (averaged, frozen):
        with torch.no_grad():
            each.clip.token_embedding.weight += 1
        each.follow()
    name = "teacher.clip.token_embedding.weight"
    torch.testing.assert_close(averaged.state_dict()[name], start + 0.25)
    batch = hard_batch()
    assert frozen(batch)["distillation"] > averaged(batch)["distillation"] > 0
    assert not any(p.requires_grad for p in averaged.teacher.parameters())


def test_hard_negatives_that_do_not_exist_are_not_distilled() -> None:
    found = model()
    found.teach(DistillConfig(weight=1, teacher="frozen"))
    with torch.no_grad():
        found.clip.token_embedding.weight += 0.1
    batch = hard_batch()
    other = replace(batch, negatives=batch.negatives.clone())
    other.negatives[~batch.negative_valid] = 3
    assert found(other)["distillation"].item() == pytest.approx(found(batch)["distillation"].item(), rel=1e-9)
    image, texts = torch.eye(3)[:2], torch.eye(3)[None].repeat(2, 1, 1)
    there = torch.tensor([[True, True, False], [True, False, False]])
    # Orthogonal unit vectors are at a squared distance of 2.
    assert distillation(image, texts, image.flip(0), texts.roll(1, 1), there) == 2 * 2 + 2 * 3


def test_a_term_that_asks_a_teacher_needs_one_and_a_joint_encoder_has_none() -> None:
    with pytest.raises(UserError, match=r"set distill\.weight"):
        resolve(parse(["objective=degla"]))
    resolve(parse(["objective=degla", "degla.text_grounded=0"]))
    resolve(preset("degla-vitb32"))
    with pytest.raises(UserError, match=r"distill\.weight .* leave it 0"):
        resolve(parse(["objective=cacr", "distill.weight=1"]))
