"""Experiments that drive the package: how the embedded model is trained, and the ablation."""
