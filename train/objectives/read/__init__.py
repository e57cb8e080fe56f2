"""READ-CLIP: from a caption another can be written, and paraphrases agree (Kwon et al., NeurIPS 2025)."""
