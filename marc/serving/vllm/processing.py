"""How vLLM's processor handles videos for our models: reads, plans and counts them, and says what a cache may share.

A video comes as a file (`marc.serving.vllm.loader`), as frames, or planned already (`marc.inference.vllm_backend`).
Whichever it was, what goes on to the model is its patches and its `PlanRecord`, as JSON in a tensor of bytes, which
unlike padded tensors has the same form for every video. Pictures go vLLM's own way, unless they are patches already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from torch import Tensor
from transformers import BatchFeature
from vllm.multimodal.inputs import MultiModalFieldConfig, MultiModalKwargsItem
from vllm.multimodal.media import MediaWithBytes
from vllm.multimodal.parse import ModalityDataItems
from vllm.multimodal.processing import PromptReplacement, PromptUpdateDetails

from marc.compression.config import CompressionConfig
from marc.inference.plan_record import PlanRecord
from marc.inference.vllm_items import PLAN, VISUAL_FIELDS, joined, planned_item
from marc.model.family import Family, find_family
from marc.model.loading import our_processor
from marc.model.modeling import PlannedGrid
from marc.model.processing import CompressedProcessor
from marc.serving.vllm.loader import FILE
from marc.serving.vllm.reading import VideoReader


class PlannedItems(ModalityDataItems[Any, Any]):
    """Videos or pictures that are patches already, each as `marc.inference.vllm_items.planned_item` makes it."""

    def get_count(self) -> int:
        """Part of vLLM's interface."""
        return len(self.data)

    def get(self, index: int) -> Mapping[str, Tensor]:
        """Part of vLLM's interface."""
        item: Mapping[str, Tensor] = self.data[index]
        return item

    def get_processor_data(self) -> Mapping[str, object]:
        """Nothing is left to do for the processor."""
        return {}

    def get_passthrough_data(self) -> Mapping[str, object]:
        """Part of vLLM's interface."""
        return joined(self.data)


def is_planned(data: object) -> bool:
    """Whether a request's videos or pictures are patches already."""
    return isinstance(data, list) and bool(data) and all(isinstance(each, dict) for each in data)


def parser_of_planned(base: type) -> Any:
    """A parser of vLLM's that also takes what is planned."""

    class Parser(base):
        def _parse_image_data(self, data: Any) -> Any:
            return PlannedItems(data, "image") if is_planned(data) else super()._parse_image_data(data)

        def _parse_video_data(self, data: Any) -> Any:
            return PlannedItems(data, "video") if is_planned(data) else super()._parse_video_data(data)

    return Parser


def compression_of(config: Any) -> CompressionConfig:
    """A configuration's compression; stock ones have the default, or what ``--hf-overrides`` sets."""
    compression = getattr(config, "compression", None)
    return (
        compression if isinstance(compression, CompressionConfig) else CompressionConfig.from_dict(compression or {})
    )


def grid_of(grid_thw: Tensor, plan: Tensor, config: Any) -> tuple[PlannedGrid, PlanRecord]:
    """A video's grids and how they are compressed, from what travels with it."""
    record = PlanRecord.from_bytes(plan.cpu().numpy().tobytes())
    return record.grid(grid_thw.tolist(), config.vision_config.spatial_merge_size), record


class ReadingInfo:
    """What our processors know of their model; comes before vLLM's class of a family among the bases."""

    ctx: Any

    def get_hf_processor(self, **kwargs: Any) -> CompressedProcessor:
        """The model's processor as one of ours."""
        processor = self.ctx.get_hf_processor(**kwargs)
        return our_processor(processor, self.family, str(self.ctx.model_config.model))

    def get_data_parser(self) -> Any:
        """Part of vLLM's interface."""
        parser: Any = super().get_data_parser()  # type: ignore[misc]
        parser.__class__ = parser_of_planned(type(parser))
        return parser

    @cached_property
    def family(self) -> Family:
        """What depends on the model's family."""
        return find_family(self.ctx.model_config.hf_config.model_type)

    @cached_property
    def reader(self) -> VideoReader:
        """Reads its videos."""
        config = self.ctx.model_config.hf_config
        return VideoReader(self.get_hf_processor(), config, compression_of(config))


class ReadingProcessor:
    """A processor that reads and plans videos; comes before vLLM's class of a family among the bases."""

    info: Any

    def _apply_hf_processor_main(self, mm_items: Any, hf_kwargs: Mapping[str, object]) -> BatchFeature:
        videos = mm_items.get("video")
        if videos is None or isinstance(videos, PlannedItems):
            return super()._apply_hf_processor_main(mm_items, hf_kwargs)  # type: ignore[misc]
        others = mm_items.select(mm_items.keys() - {"video"})
        inputs = super()._apply_hf_processor_main(others, hf_kwargs)  # type: ignore[misc]
        inputs.update(joined([planned_item(self._read(*video)) for video in videos.get_all()]))
        return inputs

    def _read(self, data: Any, metadata: Mapping[str, Any]) -> Any:
        if isinstance(data, MediaWithBytes):
            data = data.media
        if FILE in metadata:
            return self.info.reader.read_file(data.tobytes(), metadata[FILE])
        frames = data.cpu().numpy() if isinstance(data, Tensor) else data
        return self.info.reader.read_frames(frames, metadata)

    def _get_mm_fields_config(
        self, hf_inputs: BatchFeature, hf_processor_mm_kwargs: Mapping[str, object]
    ) -> dict[str, Any]:
        fields = super()._get_mm_fields_config(hf_inputs, hf_processor_mm_kwargs)  # type: ignore[misc]
        return {**fields, PLAN: MultiModalFieldConfig.batched("video", keep_on_cpu=True)}

    def _get_mm_hashes(self, inputs: Any) -> Any:
        """Beside an item and its options, what the engine's configuration makes of them is told apart."""
        return inputs.get_mm_hashes(
            f"{self.info.model_id}|{self.info.reader.compression}", self.info.ctx.get_mm_config().mm_hasher_algorithm
        )

    def _get_prompt_updates(
        self,
        mm_items: Any,
        hf_processor_mm_kwargs: Mapping[str, Any],
        out_mm_kwargs: Mapping[str, Sequence[MultiModalKwargsItem]],
    ) -> list[Any]:
        updates = super()._get_prompt_updates(mm_items, hf_processor_mm_kwargs, out_mm_kwargs)  # type: ignore[misc]
        processor, config = self.info.get_hf_processor(), self.info.get_hf_config()

        def shown(index: int) -> PromptUpdateDetails:
            item = out_mm_kwargs["video"][index]
            grid, record = grid_of(item[VISUAL_FIELDS["video"][1]].data, item[PLAN].data, config)
            plan = grid.plan_in_cells(config.vision_config.spatial_merge_size)
            ids = processor.video_ids(plan.cells, plan.seconds(record.seconds))
            return PromptUpdateDetails.select_token_id(ids, config.video_token_id)

        video = PromptReplacement(modality="video", target=[config.video_token_id], replacement=shown)
        return [*(update for update in updates if update.modality != "video"), video]
