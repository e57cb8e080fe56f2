#!/usr/bin/env bash
# sdist and wheel, and the proof that the wheel is all one needs: installed in a fresh environment, used in an empty folder.
# Usage: scripts/release.sh OUT [PYTHON]
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(realpath -m "${1:-dist}") python=${2:-python3} here=$PWD
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
rm -rf "$out"

"$python" -m venv "$room/tools"
"$room/tools/bin/pip" install --quiet build twine
# From what git holds alone: a file that is left lying about would be packed otherwise.
git archive --prefix=macco/ HEAD | tar x -C "$room"
"$room/tools/bin/python" -m build --outdir "$out" "$room/macco" >"$room/log" 2>&1 || { tail -20 "$room/log"; exit 1; }
"$room/tools/bin/twine" check --strict "$out"/*
ls -l "$out"
most=15000000
for file in "$out"/*; do
    [ "$(wc -c <"$file")" -lt $most ] || { echo "$file is over $most bytes"; exit 1; }
done

"$python" -m venv "$room/user"
"$room/user/bin/pip" install --quiet --constraint "$here/constraints.txt" "$out"/*.whl
mkdir "$room/work" && cd "$room/work"
export PATH="$room/user/bin:$PATH" HF_HUB_OFFLINE=1 RAY_USAGE_STATS_ENABLED=0
macco-prep --version
macco-prep demo corpus --images 40 --seed 7 --shard-size 20
macco-prep extract --shards 'corpus/*.tar' --out store --device cpu
macco-prep view store --out view.html
macco-train run --store store --preset demo --out run steps=2 save_every=0
macco-train export run --out clip
macco-train eval clip --benchmark demo_retrieval --data none --out report && exit 1  # no data: refused, in a line
python -c 'import macco; print(macco.query(macco.open_store("store"), "SELECT count(*) FROM boxes"))'
echo "the wheel does what the README says"
