"""Agreement of a pipeline's noun chunks with hand-annotated caption mentions: `python scripts/score_parser.py NAME`.

exact: share of gold mentions that are a noun chunk, character by character; last: of which a noun chunk has the
last word; precision: share of noun chunks (no pronouns) that are a gold mention. A chunk that is the noun of a
complex preposition ("front" in "in front of") counts for precision only.
"""

import argparse
import json
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
MENTIONS = ROOT / "tests" / "data" / "caption_mentions.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", default="en_caption")
    parser.add_argument("--show", action="store_true", help="print the mentions that are missed")
    parser.add_argument("--lower", action="store_true", help="lower-case the captions and drop the final dot")
    arguments = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from macco.preprocess.graph.language import load_pipeline

    nlp = load_pipeline(arguments.name)
    rows = [json.loads(line) for line in MENTIONS.read_text(encoding="utf8").splitlines()]
    texts = [row["caption"] for row in rows]
    if arguments.lower:
        texts = [text.lower().removesuffix(".") for text in texts]
    gold = exact = last = found = 0
    started = time.process_time()
    docs = list(nlp.pipe(texts, batch_size=256))
    seconds = time.process_time() - started
    for row, doc in zip(rows, docs, strict=True):
        mentions = {tuple(span) for span in row["mentions"]}
        chunks = {(c.start_char, c.end_char) for c in doc.noun_chunks if c.root.pos_ != "PRON"}
        ends = {end for _, end in chunks}
        gold, found = gold + len(mentions), found + len(chunks)
        exact += len(mentions & chunks)
        last += sum(end in ends for _, end in mentions)
        if arguments.show and mentions - chunks:
            missed = [doc.text[slice(*span)] for span in sorted(mentions - chunks)]
            extra = [doc.text[slice(*span)] for span in sorted(chunks - mentions)]
            print(doc.text, "| missed", missed, "| found", extra)
    print(
        f"{arguments.name}: {gold} mentions, exact {exact / gold:.3f}, last {last / gold:.3f}, "
        f"precision {exact / found:.3f}, {len(rows) / seconds:.0f} captions per CPU second"
    )


if __name__ == "__main__":
    main()
