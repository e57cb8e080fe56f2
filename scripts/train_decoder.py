"""Train the T5 that READ-CLIP writes captions with in the study: `python scripts/train_decoder.py STORE OUT`.

The paper's T5 has learned its language from the web; this one learns it from the store's captions: it writes a caption
of which a third of the words are covered. OUT is a folder for `read.decoder`, with its tokenizer of whole words. At the
end it says what a word costs (in nats), of captions that it did not see, and what it costs with another caption's
encoding: the difference is what the decoder takes from the vector that READ-CLIP gives it.
"""

import argparse
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from macco.pipeline.query import connect
from macco.pipeline.schema import OK
from macco.pipeline.store import Store

WIDTH = 128
COVERED = 1 / 3  # of the words
SPECIAL = ["<pad>", "</s>", "<unk>", "<cover>"]
PAD, END, UNKNOWN, COVER = range(len(SPECIAL))
IGNORED = -100


def word_tokenizer(captions: list[str]) -> PreTrainedTokenizerFast:
    """Whole words and punctuation, in lower case."""
    words = Tokenizer(models.WordLevel(unk_token="<unk>"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.train_from_iterator(
        captions, trainers.WordLevelTrainer(special_tokens=SPECIAL, show_progress=False)
    )
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", mask_token="<cover>"
    )


def new_t5(vocabulary: int) -> T5ForConditionalGeneration:
    """A T5 of two layers on each side."""
    config = T5Config(
        vocab_size=vocabulary, d_model=WIDTH, d_kv=32, d_ff=256, num_layers=2, num_heads=4, dropout_rate=0.0,
        feed_forward_proj="gated-gelu", tie_word_embeddings=False, decoder_start_token_id=PAD,
    )  # fmt: skip
    return T5ForConditionalGeneration(config)


def covered(tokens: Tensor) -> Tensor:
    """Captions [n, L] with a third of their words covered, drawn anew."""
    hidden = (torch.rand(tokens.shape) < COVERED) & (tokens >= len(SPECIAL))
    return tokens.masked_fill(hidden, COVER)


def loss(t5: T5ForConditionalGeneration, tokens: Tensor, seen: Tensor) -> Tensor:
    """Nats of a word of captions [n, L], written from what is seen of them [n, L]."""
    labels = tokens.masked_fill(tokens == PAD, IGNORED)
    found: Tensor = t5(input_ids=seen, attention_mask=(seen != PAD).long(), labels=labels).loss
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store")
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--judged", type=int, default=500, help="captions of which none is learned")
    args = parser.parse_args()
    torch.manual_seed(0)
    with connect(Store.open(args.store)) as connection:
        rows = connection.execute(
            f"SELECT DISTINCT caption FROM samples WHERE status = '{OK}' ORDER BY hash(caption), caption"
        ).fetchall()
    captions = [caption for (caption,) in rows]
    tokenizer = word_tokenizer(captions)
    tokens = tokenizer(captions, padding=True, return_tensors="pt")["input_ids"]
    judged, learned = tokens[: args.judged], tokens[args.judged :]
    if not len(learned):
        sys.exit(f"{args.store} has {len(captions)} captions: give fewer --judged")
    t5 = new_t5(len(tokenizer))
    optimizer = torch.optim.AdamW(t5.parameters(), args.rate, weight_decay=0.01)
    rates = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, args.rate, total_steps=max(2, args.steps), pct_start=0.1
    )
    for step in range(1, args.steps + 1):
        batch = learned[torch.randint(len(learned), (args.batch,))]
        batch = batch[:, : int((batch != PAD).sum(1).max())]
        now = loss(t5, batch, covered(batch))
        now.backward()
        torch.nn.utils.clip_grad_norm_(t5.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        rates.step()
        if step % 100 == 0:
            print(f"step {step}: {now.item():.3f} nats a word", flush=True)
    t5.eval()
    with torch.no_grad():
        own, others = loss(t5, judged, judged).item(), loss(t5, judged, judged.roll(1, 0)).item()
    print(f"captions that it did not see: {own:.3f} nats a word; with another's encoding {others:.3f}")
    t5.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)


if __name__ == "__main__":
    main()
