"""Stage 1: image-caption shards in, a concept store out."""
