"""Runs to look at in a browser: their curves, what they rebuild, how they judge; and their store as they see it."""
