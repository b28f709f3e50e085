"""Objects that stand or move, each a function that adds its parts to a `SolidList`."""
