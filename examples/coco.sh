#!/usr/bin/env bash
# COCO on one GPU box: data, extraction, two runs, evaluation. See docs/coco.md. Usage: examples/coco.sh ROOT
set -euo pipefail
root=${1:?where COCO and all that is made shall lie}
mkdir -p "$root" && cd "$root"

if [ ! -d coco/train2017 ]; then
    mkdir -p coco
    for name in zips/train2017 zips/val2017 annotations/annotations_trainval2017; do
        curl -fL -o coco/part.zip "http://images.cocodataset.org/$name.zip"
        unzip -q coco/part.zip -d coco && rm coco/part.zip
    done
fi

macco-prep extract --manifest coco2017 --root coco --out store --detector groundingdino:swinb --dtype bf16
macco-prep report store --out store.html

only="source LIKE '%train2017%'"
macco-train run --store store --preset paper-vitb32 --where "$only" --out runs/macco
macco-train run --store store --preset paper-vitb32 --preset ablation-fine-tuned --where "$only" --out runs/fine-tuned

for run in macco fine-tuned; do
    macco-train eval "runs/$run" --data data --out "eval/$run"
done
macco-train compare eval/fine-tuned eval/macco --out eval/compared
macco-train export runs/macco --format open_clip --out clip
