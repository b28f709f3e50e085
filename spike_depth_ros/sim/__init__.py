"""Synthetic drives: a procedural world, a renderer, and camera models that turn it to events."""
