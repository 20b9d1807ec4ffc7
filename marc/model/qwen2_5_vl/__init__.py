"""Qwen2.5-VL with token compression."""
