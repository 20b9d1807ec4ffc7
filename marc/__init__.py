"""MARC: video question answering from one frame's worth of visual tokens."""
