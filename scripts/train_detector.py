"""Train the embedded detector: `python scripts/train_detector.py OUT [--steps 3000] [--seed 0] [--start DIR]`.

A small MMGroundingDino (transformers' own class loads the result) for the demo corpus: 128 px scenes, short
phrases. Runs on one CPU thread, scenes are drawn anew for each step. `--evaluate N` only scores what is in OUT;
`--start DIR` trains what is in DIR further, with a new warm-up and decay (give another seed, for other scenes).

Three things make a model this small learn at all: logits that start low (the class does that), a one-to-many
loss on the encoder's proposals, and fusion between image and text that starts at 0.1 instead of 1e-4.
"""

import argparse
import json
import math
import random
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset
from torchvision.ops import box_convert, generalized_box_iou
from transformers import (
    AutoConfig,
    AutoModelForZeroShotObjectDetection,
    BertConfig,
    BertTokenizerFast,
    ConvNextConfig,
    GroundingDinoImageProcessor,
)

from macco.preprocess.demo.captions import captions
from macco.preprocess.demo.corpus import make, matching
from macco.preprocess.demo.icons import COLOURS, FRAME, NOUNS
from macco.preprocess.demo.scene import SIDE, SIZES, Scene
from macco.preprocess.detectors.prompts import Packer, PromptBatch
from macco.preprocess.look.score import match_boxes

BATCH = 16
RATE = 7e-4
TRAINING_SEED = 90210  # of scenes; other commands use small ones
WIDTH = 64
SMALL = 38 / SIDE  # boxes up to this side belong to the finer level
MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


def vocabulary() -> list[str]:
    """BERT's places for what GroundingDINO hard-codes, letters for unknown words, then the demo's words."""
    words = {*COLOURS, *SIZES, FRAME, FRAME + "s", "a", "the", "two", "three"}
    words |= {
        word for noun in NOUNS.values() for pair in noun.names for name in pair for word in name.split()
    }
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    entries = {
        0: "[PAD]",
        100: "[UNK]",
        101: "[CLS]",
        102: "[SEP]",
        103: "[MASK]",
        1010: ",",
        1011: "-",
        1012: ".",
        1029: "?",
    }
    entries |= {200 + i: letter for i, letter in enumerate(letters) if letter not in words}
    entries |= {300 + i: f"##{letter}" for i, letter in enumerate(letters)}
    entries |= {1030 + i: word for i, word in enumerate(sorted(words))}
    return [entries.get(i, f"[unused{i}]") for i in range(max(entries) + 1)]


def new_model(words: int) -> Any:
    backbone = ConvNextConfig(
        hidden_sizes=[32, 64, 96], depths=[1, 2, 2], num_stages=3, patch_size=4, out_indices=[2, 3],
        layer_scale_init_value=0.0, drop_path_rate=0.0,
    )  # fmt: skip
    text = BertConfig(
        vocab_size=words, hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=4, intermediate_size=2 * WIDTH,
        max_position_embeddings=256, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    config = AutoConfig.for_model(
        "mm-grounding-dino", backbone_config=backbone, text_config=text, num_queries=30, encoder_layers=2,
        decoder_layers=2, encoder_ffn_dim=2 * WIDTH, decoder_ffn_dim=2 * WIDTH, encoder_attention_heads=4,
        decoder_attention_heads=4, d_model=WIDTH, dropout=0.0, fusion_droppath=0.0, num_feature_levels=2,
    )  # fmt: skip
    model = AutoModelForZeroShotObjectDetection.from_config(config)
    for name, weight in model.named_parameters():
        if name.endswith(("vision_param", "text_param")):
            torch.nn.init.constant_(weight, 0.1)
    return model


def share_plurals(model: Any, tokenizer: BertTokenizerFast) -> None:
    """Let plurals, which are rare, begin as what is known of their singulars."""
    words = model.model.text_backbone.get_input_embeddings()
    names = [pair for noun in NOUNS.values() for pair in noun.names]
    one, many = (
        tokenizer.convert_tokens_to_ids([pair[number].split()[-1] for pair in names]) for number in (0, 1)
    )
    with torch.no_grad():
        words.weight[many] = words.weight[one]


def phrases_for(scene: Scene, rng: random.Random) -> list[str]:
    """What captions may call the things, and phrases that are close but true of nothing."""
    said = []
    for thing in scene.things:
        names = ((FRAME, FRAME + "s"),) if thing.noun == FRAME else NOUNS[thing.noun].names
        others = [other for other in scene.things if other is not thing]
        for _ in range(rng.choice((1, 2, 3, 4))):
            name = rng.choice(names)[(len(thing.boxes) > 1) != (rng.random() < 0.25)]
            colour, size = thing.colour, thing.size
            wrong = rng.random()
            if wrong < 0.12:
                colour = rng.choice([other.colour for other in others] + list(COLOURS))
            elif wrong < 0.2:
                name = rng.choice(rng.choice(list(NOUNS.values())).names)[len(thing.boxes) > 1]
            elif wrong < 0.26 and size != "medium":
                size = "small" if size == "large" else "large"
            adjectives = [size] * (size != "medium" and rng.random() < 0.45) + [colour] * (
                rng.random() < 0.8 or wrong < 0.12
            )
            said.append(" ".join([*adjectives, name]))
    rng.shuffle(said)
    return list(dict.fromkeys(said))


Example = tuple[Tensor, list[str], list[list[tuple[float, ...]]]]


class Scenes(IterableDataset[Example]):
    """Endless: pixels uint8 [3, 128, 128], phrases, and the boxes of each phrase in pixels."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __iter__(self) -> Iterator[Example]:
        index = 0
        while True:
            scene, rng = make("test" if index % 4 == 0 else "train", self.seed, index)
            index += 1
            if all(len(thing.boxes) == 1 for thing in scene.things) and rng.random() < 0.5:
                continue  # groups are harder to tell apart: show them more often
            phrases = phrases_for(scene, rng)
            pixels = torch.from_numpy(np.array(scene.draw())).permute(2, 0, 1)
            yield pixels, phrases, [matching(scene, phrase) for phrase in phrases]


Target = tuple[Tensor, Tensor]  # boxes [N, 4] cx, cy, w, h in 0..1; their tokens [N, T] bool


def targets_of(examples: list[Example], prompts: PromptBatch) -> list[Target]:
    """Each box with the tokens of all phrases that it answers."""
    found = []
    for row, (_, phrases, boxes) in enumerate(examples):
        tokens: dict[tuple[float, ...], Tensor] = {}
        for place in range(len(phrases)):
            for box in boxes[place]:
                tokens[box] = (
                    tokens.get(box, torch.zeros(prompts.input_ids.shape[1], dtype=torch.bool))
                    | (prompts.phrase_tokens[row, place])
                )
        corners = torch.tensor(list(tokens)).reshape(-1, 4) / SIDE
        maps = (
            torch.stack(list(tokens.values()))
            if tokens
            else torch.zeros(0, prompts.input_ids.shape[1], dtype=torch.bool)
        )
        found.append((box_convert(corners, "xyxy", "cxcywh"), maps.float()))
    return found


def focal(logits: Tensor, target: Tensor, mask: Tensor, count: int) -> Tensor:
    logits, target = logits[mask], target[mask]
    p = logits.sigmoid()
    right = p * target + (1 - p) * (1 - target)
    weight = (0.25 * target + 0.75 * (1 - target)) * (1 - right) ** 2
    return (weight * F.binary_cross_entropy_with_logits(logits, target, reduction="none")).sum() / count


def box_loss(predicted: Tensor, true: Tensor) -> Tensor:
    if not len(true):
        return predicted.sum() * 0
    corners = box_convert(predicted, "cxcywh", "xyxy"), box_convert(true, "cxcywh", "xyxy")
    giou = generalized_box_iou(*corners).diagonal()
    return (5 * (predicted - true).abs().sum() + 2 * (1 - giou).sum()) / len(true)


def one_to_one(logits: Tensor, boxes: Tensor, targets: list[Target], mask: Tensor) -> Tensor:
    """Hungarian matching of queries [B, Q] to boxes, as DETR does."""
    goal = torch.zeros_like(logits)
    predicted, true = [], []
    for row, (wanted, tokens) in enumerate(targets):
        if not len(wanted):
            continue
        with torch.no_grad():
            p = logits[row].sigmoid().clamp(1e-6, 1 - 1e-6)
            gain = 0.25 * (1 - p) ** 2 * -p.log() - 0.75 * p**2 * -(1 - p).log()
            cost = 2 * gain @ (tokens / tokens.sum(1, keepdim=True)).T + 5 * torch.cdist(
                boxes[row], wanted, p=1
            )
            corners = box_convert(boxes[row], "cxcywh", "xyxy"), box_convert(wanted, "cxcywh", "xyxy")
            queries, objects = linear_sum_assignment((cost - 2 * generalized_box_iou(*corners)).numpy())
        goal[row, queries] = tokens[objects]
        predicted.append(boxes[row, queries])
        true.append(wanted[objects])
    count = max(1, sum(len(wanted) for wanted, _ in targets))
    pairs = (torch.cat(predicted), torch.cat(true)) if true else (boxes[:0, 0], boxes[:0, 0])
    return 2 * focal(logits, goal, mask[:, None].expand_as(logits), count) + box_loss(*pairs)


def level_centres() -> tuple[Tensor, int]:
    """Centres (x, y) of the encoder's tokens, strides 8 and 16, and how many the first level has."""
    grids = []
    for side in (SIDE // 8, SIDE // 16):
        steps = (torch.arange(side) + 0.5) / side
        y, x = torch.meshgrid(steps, steps, indexing="ij")
        grids.append(torch.stack([x, y], -1).reshape(-1, 2))
    return torch.cat(grids), len(grids[0])


def one_to_many(logits: Tensor, raw: Tensor, targets: list[Target], mask: Tensor, nearest: int = 4) -> Tensor:
    """The encoder tokens nearest a box's centre, on the level of its size, learn that box."""
    centres, finer = level_centres()
    goal = torch.zeros_like(logits)
    boxes = raw.sigmoid()
    predicted, true = [], []
    for row, (wanted, tokens) in enumerate(targets):
        for box, words in zip(wanted, tokens, strict=True):
            distance = (centres - box[:2]).norm(dim=1)
            level = slice(0, finer) if max(box[2:]) <= SMALL else slice(finer, None)
            near = distance[level].topk(nearest, largest=False).indices + (level.start or 0)
            goal[row, near] = torch.maximum(goal[row, near], words)
            predicted.append(boxes[row, near])
            true.append(box.expand(nearest, 4))
    valid = mask[:, None] & torch.isfinite(raw).all(-1)[..., None]
    pairs = (torch.cat(predicted), torch.cat(true)) if true else (boxes[:0, 0], boxes[:0, 0])
    return 2 * focal(logits, goal, valid.expand_as(logits), max(1, len(pairs[1]))) + box_loss(*pairs)


def loss_of(model: Any, examples: list[Example], packer: Packer) -> Tensor:
    prompts = packer.collate(
        [packed.prompts[0] for packed in packer([phrases for _, phrases, _ in examples])]
    )
    pixels = (torch.stack([pixels for pixels, _, _ in examples]).float() / 255 - MEAN) / STD
    out = model(
        pixel_values=pixels, input_ids=prompts.input_ids, attention_mask=prompts.attention_mask.long()
    )
    targets, mask = targets_of(examples, prompts), prompts.attention_mask
    width = mask.shape[1]
    loss = one_to_many(out.enc_outputs_class[..., :width], out.enc_outputs_coord_logits, targets, mask)
    hidden = out.intermediate_hidden_states
    for level in range(hidden.shape[1]):
        start = out.init_reference_points if level == 0 else out.intermediate_reference_points[:, level - 1]
        logits = model.class_embed[level](hidden[:, level], out.encoder_last_hidden_state_text, mask)[
            ..., :width
        ]
        boxes = (model.bbox_embed[level](hidden[:, level]) + torch.special.logit(start, eps=1e-5)).sigmoid()
        loss = loss + one_to_one(logits, boxes, targets, mask)
    return loss


def train(out: Path, steps: int, seed: int, rate: float, start_from: Path | None) -> None:
    torch.manual_seed(seed)
    out.mkdir(parents=True, exist_ok=True)
    words = vocabulary()
    (out / "vocab.txt").write_text("\n".join(words) + "\n")
    tokenizer = BertTokenizerFast(str(out / "vocab.txt"), do_lower_case=True, model_max_length=256)
    tokenizer.save_pretrained(out)
    GroundingDinoImageProcessor(size={"shortest_edge": SIDE, "longest_edge": 2 * SIDE}).save_pretrained(out)
    model = (
        AutoModelForZeroShotObjectDetection.from_pretrained(start_from)
        if start_from
        else new_model(len(words))
    )
    packer, model = Packer(tokenizer, 256), model.float().train()
    share_plurals(model, tokenizer)
    print(
        f"{sum(weight.numel() for weight in model.parameters()):,} parameters, {len(words)} words", flush=True
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=1e-4)
    loader = DataLoader(Scenes(TRAINING_SEED + seed), batch_size=BATCH, num_workers=1, collate_fn=list)
    start, losses = time.monotonic(), []
    for step, examples in enumerate(islice(loader, steps)):
        for group in optimizer.param_groups:
            group["lr"] = (
                rate * min(1, (step + 1) / 100) * (0.02 + 0.49 * (1 + math.cos(math.pi * step / steps)))
            )
        loss = loss_of(model, examples, packer)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if step % 200 == 199:
            seconds = time.monotonic() - start
            print(f"step {step + 1}  loss {np.mean(losses[-200:]):.3f}  {seconds:.0f} s", flush=True)
            save(model, out)
    save(model, out)


def save(model: Any, out: Path) -> None:
    """In half precision: what loads it computes in float32."""
    state = {name: value.half() for name, value in model.state_dict().items()}
    model.save_pretrained(out, state_dict=state)


def evaluate(out: Path, images: int, seed: int, threshold: float) -> None:
    """Boxes of all phrases of all captions, on scenes of another seed, by split."""
    from macco.preprocess.detectors import load_detector

    detector = load_detector(f"transformers:{out}", device="cpu", batch_size=32)
    for split in ("train", "test"):
        predicted, true, pictures, asked = [], [], [], []
        for index in range(images):
            scene, rng = make(split, seed, index)
            graphs = [graph for _, graph in captions(scene, rng)]
            asked.append(
                list(
                    dict.fromkeys(
                        c.phrase for graph in graphs for c in graph if c.kind == "object" and c.phrase
                    )
                )
            )
            pictures.append(scene.draw())
            true += [
                (index, phrase, "", *np.divide(box, SIDE), 1.0)
                for phrase in asked[-1]
                for box in matching(scene, phrase)
            ]
        start = time.monotonic()
        results = detector.detect(pictures, asked)
        seconds = time.monotonic() - start
        for index, result in enumerate(results):
            for phrase, box, score in zip(result.phrase, result.boxes, result.scores, strict=True):
                if score >= threshold:
                    predicted.append((index, asked[index][phrase], "", *box.tolist(), float(score)))
        predicted.sort(key=lambda row: -row[-1])
        agreement = match_boxes(predicted, true, 0.5)
        figures = {
            "recall": agreement.recall,
            "precision": agreement.precision,
            "ms_per_image": 1000 * seconds / images,
        }
        print(split, json.dumps({name: round(value, 4) for name, value in figures.items()}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=RATE, help="highest learning rate")
    parser.add_argument("--start", type=Path, metavar="DIR", help="weights to train further")
    parser.add_argument(
        "--evaluate", type=int, metavar="N", default=0, help="only score N images of each split"
    )
    parser.add_argument("--threshold", type=float, default=0.35)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if not options.evaluate:
        train(options.out, options.steps, options.seed, options.rate, options.start)
    evaluate(options.out, options.evaluate or 500, 1, options.threshold)


if __name__ == "__main__":
    main()
