"""The compressed model: Qwen2.5-VL with token compression, registered with transformers' Auto classes."""

from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor

from marc.compression.config import CompressionConfig
from marc.model.qwen2_5_vl.config import MarcConfig
from marc.model.qwen2_5_vl.modeling import MarcForConditionalGeneration, MarcModel
from marc.model.qwen2_5_vl.processing import MarcProcessor

AutoConfig.register(MarcConfig.model_type, MarcConfig)
AutoModel.register(MarcConfig, MarcModel)
AutoModelForImageTextToText.register(MarcConfig, MarcForConditionalGeneration)
AutoProcessor.register(MarcConfig, MarcProcessor)

__all__ = ["CompressionConfig", "MarcConfig", "MarcForConditionalGeneration", "MarcModel", "MarcProcessor"]
