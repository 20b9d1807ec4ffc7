"""The compressed model: Qwen2.5-VL with token compression, registered with transformers' Auto classes."""

from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor

from marc.model.configuration_marc import MarcConfig
from marc.model.modeling_marc import MarcForConditionalGeneration, MarcModel
from marc.model.plan import CompressionConfig
from marc.model.processing_marc import MarcProcessor

AutoConfig.register(MarcConfig.model_type, MarcConfig)
AutoModel.register(MarcConfig, MarcModel)
AutoModelForImageTextToText.register(MarcConfig, MarcForConditionalGeneration)
AutoProcessor.register(MarcConfig, MarcProcessor)

__all__ = ["CompressionConfig", "MarcConfig", "MarcForConditionalGeneration", "MarcModel", "MarcProcessor"]
