"""Qwen3-VL with token compression."""

from marc.model.family import Classes, Family, StockClasses

FAMILY = Family(
    name="qwen3_vl",
    title="Qwen3-VL",
    model_type="marc_qwen3_vl",
    stock_model_type="qwen3_vl",
    ours=Classes(
        config="marc.model.qwen3_vl.config:MarcQwen3VLConfig",
        model="marc.model.qwen3_vl.modeling:MarcQwen3VLModel",
        generator="marc.model.qwen3_vl.modeling:MarcQwen3VLForConditionalGeneration",
        processor="marc.model.qwen3_vl.processing:MarcQwen3VLProcessor",
    ),
    stock=StockClasses(
        config="transformers:Qwen3VLConfig",
        model="transformers:Qwen3VLModel",
        generator="transformers:Qwen3VLForConditionalGeneration",
        processor="transformers:Qwen3VLProcessor",
        tower="transformers.models.qwen3_vl.modeling_qwen3_vl:Qwen3VLVisionModel",
        image_processor="transformers:Qwen2VLImageProcessor",
        video_processor="transformers:Qwen3VLVideoProcessor",
    ),
    tower_part="marc.model.qwen3_vl.vision:tower_part",
    vision_tokens=("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
    language_linears=r".*language_model.*\.(q|k|v|o|gate|up|down)_proj",
    tiny="marc.model.qwen3_vl.tiny",
)
