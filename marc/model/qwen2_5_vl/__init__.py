"""Qwen2.5-VL with token compression."""

from marc.model.family import Classes, Family, StockClasses

FAMILY = Family(
    name="qwen2_5_vl",
    title="Qwen2.5-VL",
    model_type="marc",
    stock_model_type="qwen2_5_vl",
    ours=Classes(
        config="marc.model.qwen2_5_vl.config:MarcConfig",
        model="marc.model.qwen2_5_vl.modeling:MarcModel",
        generator="marc.model.qwen2_5_vl.modeling:MarcForConditionalGeneration",
        processor="marc.model.qwen2_5_vl.processing:MarcProcessor",
    ),
    stock=StockClasses(
        config="transformers:Qwen2_5_VLConfig",
        model="transformers:Qwen2_5_VLModel",
        generator="transformers:Qwen2_5_VLForConditionalGeneration",
        processor="transformers:Qwen2_5_VLProcessor",
        tower="transformers.models.qwen2_5_vl.modeling_qwen2_5_vl:Qwen2_5_VisionTransformerPretrainedModel",
        image_processor="transformers:Qwen2VLImageProcessor",
        video_processor="transformers:Qwen2VLVideoProcessor",
    ),
    tower_part="marc.model.qwen2_5_vl.vision:tower_part",
    vision_tokens=("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
    language_linears=r".*language_model.*\.(q|k|v|o|gate|up|down)_proj",
    tiny="marc.model.qwen2_5_vl.tiny",
    tower_with_attention="marc.model.qwen2_5_vl.vision:tower_with_attention",
    tower_that_merges="marc.model.qwen2_5_vl.merging_cells:tower_that_merges",
)
