"""Configurations of open_clip models that are this project's own."""
