"""How the embedded model and its dual encoder are trained."""
