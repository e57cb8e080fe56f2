#!/usr/bin/env bash
# The study of docs/study.md from nothing: corpus, extraction, benchmarks, runs, tables. The same command goes on
# where a stopped one ended. Usage: scripts/study.sh OUT [STUDY: demo, bakeoff or cacr] [options of macco-train study]
set -euo pipefail
out=${1:-study} study=${2:-demo}
shift $(($# < 2 ? $# : 2))
export HF_HUB_OFFLINE=1 RAY_USAGE_STATS_ENABLED=0
mkdir -p "$out"

[ -d "$out/corpus/truth" ] || macco-prep demo "$out/corpus" --images 4000 --seed 7 --shard-size 500
macco-prep extract --shards "$out/corpus/*.tar" --out "$out/store" --device cpu
benchmark() {
    [ -f "$out/$1/demo/items.jsonl" ] ||
        macco-prep demo "$out/$1/demo" --benchmark --split "$1" --seed 1 --images "$2"
}
benchmark val 150
benchmark test 250
if [ "$study" = bakeoff ]; then # READ-CLIP's decoder learns its language from the captions
    [ -f "$out/t5/config.json" ] || python "$(dirname "$0")/train_decoder.py" "$out/store" "$out/t5"
    set -- "read.decoder=$out/t5" "$@"
fi
macco-train study "$study" --store "$out/store" --val "$out/val" --test "$out/test" --out "$out/$study" "$@"
