"""The micro-world: a procedural video benchmark, and the recipe of the embedded model that answers it."""
