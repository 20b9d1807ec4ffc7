"""Inference: what a model sees of a video, the engine that answers, and the assistant that joins them."""
