"""Data for training and evaluation: prompts, rows, checks."""
