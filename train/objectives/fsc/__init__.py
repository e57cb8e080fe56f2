"""FSC-CLIP: local and global hard-negative losses, calibrated so that they damage less (Oh et al., EMNLP 2024)."""
