"""Configurations that ship with macco; they differ from the defaults in what they say."""
