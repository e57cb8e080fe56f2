"""DeGLA: hard negatives grounded in images and in a teacher's captions, and what was learnt kept (2025)."""
