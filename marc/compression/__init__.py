"""The method's mathematics: what is kept of a video, decided beforehand (plan) and carried out on tensors (merge).

Needs torch alone, neither transformers nor trl.
"""

from marc.compression.config import CompressionConfig
from marc.compression.merge import compress, frame_similarity
from marc.compression.plan import VideoPlan, plan_video

__all__ = ["CompressionConfig", "VideoPlan", "compress", "frame_similarity", "plan_video"]
