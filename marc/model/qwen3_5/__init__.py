"""Qwen3.5 with token compression."""

from marc.model.family import Classes, Family, StockClasses

FAMILY = Family(
    name="qwen3_5",
    title="Qwen3.5",
    model_type="marc_qwen3_5",
    stock_model_type="qwen3_5",
    ours=Classes(
        config="marc.model.qwen3_5.config:MarcQwen35Config",
        model="marc.model.qwen3_5.modeling:MarcQwen35Model",
        generator="marc.model.qwen3_5.modeling:MarcQwen35ForConditionalGeneration",
        processor="marc.model.qwen3_5.processing:MarcQwen35Processor",
    ),
    stock=StockClasses(
        config="transformers:Qwen3_5Config",
        model="transformers:Qwen3_5Model",
        generator="transformers:Qwen3_5ForConditionalGeneration",
        processor="transformers:Qwen3VLProcessor",
        tower="transformers.models.qwen3_5.modeling_qwen3_5:Qwen3_5VisionModel",
        image_processor="transformers:Qwen2VLImageProcessor",
        video_processor="transformers:Qwen3VLVideoProcessor",
    ),
    tower_part="marc.model.qwen3_5.vision:tower_part",
    vision_tokens=("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
    language_linears=r".*language_model.*\.((q|k|v|o|gate|up|down|out)_proj|in_proj_(qkv|z))",
    tiny="marc.model.qwen3_5.tiny",
)
