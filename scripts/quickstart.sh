#!/usr/bin/env bash
# The whole way once, small: a corpus, its extraction, a look, a short training, an evaluation, a checkpoint.
# Runs offline on two CPU cores. Usage: scripts/quickstart.sh OUT
set -euo pipefail
out=${1:-quickstart}
export HF_HUB_OFFLINE=1 RAY_USAGE_STATS_ENABLED=0
rm -rf "$out"
mkdir -p "$out"

step() { printf '\n== %s\n' "$1"; }
run() { # the reader sees each command as it could be given again
    local word line='$'
    for word; do [[ $word =~ [^[:alnum:]/.,:=_-] ]] && line+=" \"$word\"" || line+=" $word"; done
    printf '%s\n' "$line"
    "$@"
}

step "a corpus that is drawn here: 1,000 scenes with five captions each"
run macco-prep demo "$out/corpus" --images 1000 --seed 7 --shard-size 125

step "extraction on Ray: a scene graph of each caption, boxes of its objects"
run macco-prep extract --shards "$out/corpus/*.tar" --out "$out/store" --device cpu

step "its spans and boxes against what was drawn"
run macco-prep score "$out/store" --truth "$out/corpus/truth"

step "a look: questions in SQL, and pages for the browser"
run macco-prep sql "$out/store" "SELECT subject, relation, object, count(*) AS captions FROM triplets
    GROUP BY ALL ORDER BY captions DESC, 1, 2, 3 LIMIT 5"
run macco-prep report "$out/store" --out "$out/report.html"
run macco-prep view "$out/store" --out "$out/view.html" --limit 24

step "the same store trains: 120 steps of MACCO on the small CLIP that ships"
run macco-train run --store "$out/store" --preset demo --out "$out/run"

step "scenes with one thing changed: does it know?"
run macco-prep demo "$out/data/demo" --benchmark --split test --images 50
run macco-train eval "$out/run/model" --benchmark demo --data "$out/data" --out "$out/evaluation"

step "what was made, as open_clip loads it"
run macco-train export "$out/run" --format open_clip --out "$out/clip"
run python -c "import open_clip; print(open_clip.create_model('local-dir:$out/clip').visual.image_size)"

cat <<END

Made in $((SECONDS / 60)) min $((SECONDS % 60)) s:
  $out/store                    concepts and boxes as Parquet    macco-prep serve $out/store
  $out/report.html              what the store holds: counts, commonest concepts, scores, boxes
  $out/view.html                images, boxes and words
  $out/run/report.html          curves; masked words and patches, and what the model made of them
  $out/evaluation/report.md     scores, with intervals
  $out/clip                     a CLIP checkpoint
So short a training shows the way, not the method's worth: that is docs/study.md (make study, hours).

With your own pictures (a folder of a.jpg with a.txt beside it, tars, CSV, COCO's JSON, Parquet: docs/inputs.md):
  macco-prep models             the detector that ships knows these drawings only: photos need a real one
  macco-prep extract --shards PHOTOS --detector groundingdino:swint --out store
  macco-train run --store store --preset paper-vitb32 --out runs/b32
END
