#!/usr/bin/env bash
# The whole way once, small: corpus, extraction, its score against the truth, questions in SQL, a small study, export.
# Runs offline on two CPU cores. Usage: scripts/quickstart.sh OUT
set -euo pipefail
out=${1:-quickstart}
export HF_HUB_OFFLINE=1 RAY_USAGE_STATS_ENABLED=0
rm -rf "$out"
mkdir -p "$out"

say() { printf '\n== %s\n' "$*"; }

say "demo corpus: 2,000 drawn scenes with five captions each"
macco-prep demo "$out/corpus" --images 2000 --seed 7 --shard-size 250

say "extraction on Ray: scene graphs and boxes"
macco-prep extract --shards "$out/corpus/*.tar" --out "$out/store" --device cpu

say "against the truth of the drawings"
macco-prep score "$out/store" --truth "$out/corpus/truth" | tee "$out/score.txt"

say "what is in the store"
macco-prep stats "$out/store"
macco-prep sql "$out/store" "
    SELECT s.lemma AS subject, r.lemma AS relation, o.lemma AS object, count(*) AS captions
    FROM concepts r JOIN concepts s ON s.concept_id = r.subject_id JOIN concepts o ON o.concept_id = r.object_id
    WHERE r.kind = 'relation' AND r.part = 0 GROUP BY ALL ORDER BY captions DESC, 1, 2, 3 LIMIT 8"
macco-prep view "$out/store" --out "$out/view.html" --limit 24

say "the same extraction's concepts train a small CLIP: by contrast alone, and by MACCO"
macco-prep demo "$out/data/demo" --benchmark --split test --images 100
macco-train study demo --store "$out/store" --test "$out/data" --out "$out/study" --no-tune --keep \
    --arms contrastive,macco --seeds 0 steps=200

say "the demo benchmark: before, contrastive fine-tuning, MACCO"
sed -n '/^|/p' "$out/study/study.md"

say "what MACCO made, as open_clip loads it"
macco-train report "$out/study/runs/macco-0"
macco-train export "$out/study/runs/macco-0" --format open_clip --out "$out/clip"
python -c "import open_clip, sys; print(open_clip.create_model('local-dir:' + sys.argv[1]).visual.image_size)" "$out/clip"

say "look at $out/view.html, $out/study/study.md and $out/study/runs/macco-0/report.html"
