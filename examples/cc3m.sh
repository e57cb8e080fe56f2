#!/usr/bin/env bash
# CC3M on a Ray cluster: img2dataset's tars in object storage, the store beside them. Run on the head node, or as
# `ray submit examples/ray-cluster.yaml examples/cc3m.sh s3://BUCKET`. Usage: examples/cc3m.sh s3://BUCKET
set -euo pipefail
bucket=${1:?s3://BUCKET, which holds cc3m/00000.tar and so on}

macco-prep extract --shards "$bucket/cc3m/{00000..00331}.tar" --out "$bucket/cc3m-store" \
    --detector groundingdino:swinb --dtype bf16 --ray-address auto --gpus-per-actor 1
macco-prep status "$bucket/cc3m-store"
macco-prep report "$bucket/cc3m-store" --out cc3m.html
