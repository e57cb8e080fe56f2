"""A controlled study: many arms x seeds of one training, tuned alike, evaluated alike, in one table."""
