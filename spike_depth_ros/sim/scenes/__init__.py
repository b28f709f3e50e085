"""Builders of scenes: each turns a random generator into the arrays of a world."""
