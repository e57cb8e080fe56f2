"""Studies that ship with macco: train/study/plan.py says what their keys mean."""
