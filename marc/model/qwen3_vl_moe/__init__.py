"""Qwen3-VL with a mixture of experts, with token compression."""

from marc.model.family import Classes, Family, StockClasses

FAMILY = Family(
    name="qwen3_vl_moe",
    title="Qwen3-VL-MoE",
    model_type="marc_qwen3_vl_moe",
    stock_model_type="qwen3_vl_moe",
    ours=Classes(
        config="marc.model.qwen3_vl_moe.config:MarcQwen3VLMoeConfig",
        model="marc.model.qwen3_vl_moe.modeling:MarcQwen3VLMoeModel",
        generator="marc.model.qwen3_vl_moe.modeling:MarcQwen3VLMoeForConditionalGeneration",
        processor="marc.model.qwen3_vl_moe.processing:MarcQwen3VLMoeProcessor",
    ),
    stock=StockClasses(
        config="transformers:Qwen3VLMoeConfig",
        model="transformers:Qwen3VLMoeModel",
        generator="transformers:Qwen3VLMoeForConditionalGeneration",
        processor="transformers:Qwen3VLProcessor",
        tower="transformers.models.qwen3_vl_moe.modeling_qwen3_vl_moe:Qwen3VLMoeVisionModel",
        image_processor="transformers:Qwen2VLImageProcessor",
        video_processor="transformers:Qwen3VLVideoProcessor",
    ),
    tower_part="marc.model.qwen3_vl.vision:tower_part",
    vision_tokens=("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
    language_linears=r".*language_model.*\.(q|k|v|o|gate|up|down)_proj",
    tiny="marc.model.qwen3_vl_moe.tiny",
)
