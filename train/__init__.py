"""Stage 2: a concept store in, a fine-tuned CLIP out."""
