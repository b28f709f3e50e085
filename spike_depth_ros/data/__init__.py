"""Data sets: event windows with exact or measured depth, the same `Sample` from each."""
