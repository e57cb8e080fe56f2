"""Florence-2: a caption of one phrase, and the model writes where it is, corner by corner."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import Florence2ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from macco.pipeline.errors import UserError
from macco.preprocess.detectors.checkpoint import load_model
from macco.preprocess.detectors.phrasewise import Phrases, Squares

PROMPT = "Locate the phrases in the caption: {}"
BINS = 1000  # along each side: a corner is a token for x and one for y
WRITTEN = 128  # tokens at most: thirty boxes
LIMIT = 96  # tokens of a prompt


class Florence2Network:
    """A florence2 checkpoint from a local folder. An image is encoded once; each phrase is its own answer.

    The model gives no scores: a box's is the geometric mean of the probabilities of its four tokens.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.model = load_model(Florence2ForConditionalGeneration, folder).to(device)
        self.device = device
        self.squares = Squares(folder, padded=False)
        self.phrases = Phrases(folder, LIMIT, spared=PROMPT.format(""))
        first, last = self.phrases.tokenizer.convert_tokens_to_ids(["<loc_0>", f"<loc_{BINS - 1}>"])
        if first is None or last is None or last - first != BINS - 1:
            raise UserError(f"{folder}: the vocabulary must have <loc_0> to <loc_{BINS - 1}> in a row")
        self.first = int(first)

    def groups(self, phrases: Sequence[str]) -> list[list[int]]:
        """See `PhraseNetwork`."""
        return [[k] for k in range(len(phrases))]

    def encode(self, pixels: Tensor) -> Tensor:
        """Tokens of the images [B, T, D]."""
        features: Tensor = self.model.get_image_features(pixel_values=pixels).pooler_output
        return features

    def answer(
        self, images: Tensor, rows: Sequence[int], phrases: Sequence[Sequence[str]]
    ) -> tuple[Tensor, Tensor]:
        """See `PhraseNetwork`."""
        ids, mask = (
            each.to(self.device) for each in self.phrases.tokens([PROMPT.format(text) for (text,) in phrases])
        )
        seen = images[list(rows)]
        inputs = torch.cat([seen, self.model.get_input_embeddings()(ids).to(seen.dtype)], 1)
        mask = torch.cat([mask.new_ones(seen.shape[:2]), mask], 1)
        encoded = self.model.get_encoder()(inputs_embeds=inputs, attention_mask=mask).last_hidden_state
        out = self.model.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=encoded), attention_mask=mask, num_beams=1,
            do_sample=False, max_new_tokens=WRITTEN, max_length=None, output_scores=True,
            return_dict_in_generate=True,
        )  # fmt: skip
        written = out.sequences[:, -len(out.scores) :]
        said = torch.stack([scores.float().log_softmax(-1) for scores in out.scores], 1)
        chances = said.gather(2, written[..., None])[..., 0]
        found = [self._boxes(*one) for one in zip(written.tolist(), chances.tolist(), strict=True)]
        most = max(1, *map(len, found))
        rows_ = torch.zeros(len(found), most, 5)
        for n, own in enumerate(found):
            rows_[n, : len(own)] = torch.tensor(own).reshape(-1, 5)
        return rows_[:, None, :, 4].to(self.device), rows_[..., :4].to(self.device)

    def _boxes(self, tokens: list[int], chances: list[float]) -> list[list[float]]:
        """Boxes as cx, cy, w, h and a score: of each run of places, four by four."""
        found, run = list[list[float]](), list[int]()
        for at, token in enumerate(tokens):
            if not 0 <= token - self.first < BINS:
                run = []
                continue
            run.append(at)
            if len(run) == 4:
                x0, y0, x1, y1 = ((tokens[one] - self.first + 0.5) / BINS for one in run)
                score = float(torch.tensor([chances[one] for one in run]).mean().exp())
                found.append([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0, score])
                run = []
        return found
