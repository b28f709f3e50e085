"""Things that stand or drive about, each a function that adds its parts to a `SolidList`."""
