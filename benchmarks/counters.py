"""What a model has to compute and to move, counted without computing it, and the time that a device needs for that.

Operations are counted by torch's `FlopCounterMode` and its formulas while the real code runs: on a device, or on the
meta device, where shapes alone pass through it and the true 3B takes seconds. Two things are added: attention under a
causal mask counts the pairs that are visible, and each product is noted with the bytes of its operands and result,
which move once; everything else could be fused into them. So a limit computed from the counts (the roofline of each
product, summed) is one that no implementation of the same products passes.

Shapes: B = 1, H heads, L queries, S keys, D channels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode, flop_registry
from transformers import AttentionInterface, PreTrainedModel

from marc.model.attention import attention
from marc.model.segment_attention import SEGMENT_ATTENTION

COUNTED_ATTENTION = "marc_counted"
"""Name under which transformers finds the attention that is counted on the meta device."""
_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention
_FORMULAS = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: flop_registry[_ATTENTION], **flop_registry}


@dataclass(frozen=True)
class Ceilings:
    """What a device reaches at best.

    Attributes:
        flops: Floating-point operations a second in a large matrix product of the model's type.
        bandwidth: Bytes a second in a large copy, read and written.
    """

    flops: float
    bandwidth: float


@dataclass(frozen=True)
class Product:
    """One matrix product, convolution or attention: its operations and the bytes of its operands and result."""

    flops: float
    bytes: float


@dataclass(frozen=True)
class Work:
    """All products of a stage."""

    products: tuple[Product, ...] = ()

    def __add__(self, other: Work) -> Work:
        return Work(self.products + other.products)

    @property
    def flops(self) -> float:
        """Floating-point operations; a multiplication with an addition is two."""
        return sum(product.flops for product in self.products)

    @property
    def bytes(self) -> float:
        """Bytes moved."""
        return sum(product.bytes for product in self.products)

    def seconds(self, ceilings: Ceilings) -> float:
        """The time in which the device could do it: each product at the slower of its two limits."""
        return sum(
            max(product.flops / ceilings.flops, product.bytes / ceilings.bandwidth) for product in self.products
        )


class WorkCounter(FlopCounterMode):
    """Torch's counter, which also notes the products one by one.

    Attributes:
        active: Whether they are noted now.
    """

    def __init__(self) -> None:
        formulas = {operation: self._noted(operation, formula) for operation, formula in _FORMULAS.items()}
        super().__init__(display=False, custom_mapping=formulas)
        self.active = True
        self._products: list[Product] = []

    @property
    def work(self) -> Work:
        """What ran so far."""
        return Work(tuple(self._products))

    @contextmanager
    def only_in(self, module: nn.Module) -> Iterator[WorkCounter]:
        """Notes only what runs in the forward passes of a module."""

        def switch(on: bool) -> Callable[..., None]:
            def hook(*_: Any) -> None:
                self.active = on

            return hook

        hooks = (module.register_forward_pre_hook(switch(True)), module.register_forward_hook(switch(False)))
        self.active = False
        try:
            with self:
                yield self
        finally:
            for hook in hooks:
                hook.remove()

    def _noted(self, operation: Any, formula: Callable[..., float]) -> Callable[..., float]:
        """An operation's formula, which notes what it counts."""

        def count(*args: Any, out_val: Any, **kwargs: Any) -> float:
            flops = formula(*args, out_val=out_val, **kwargs)
            if _is_causal(operation, args):
                flops *= _visible_share(args[0].shape[2], args[1].shape[2])
            if self.active:
                output = out_val[0] if isinstance(out_val, tuple) else out_val
                moved = sum(tensor.nbytes for tensor in (*args, output) if isinstance(tensor, Tensor))
                self._products.append(Product(flops, moved))
            return flops

        count._get_raw = True  # type: ignore[attr-defined]  # torch then hands over tensors instead of their shapes
        return count


def _is_causal(operation: Any, args: Sequence[Any]) -> bool:
    """Whether an operation is attention under a causal mask; trailing arguments at their defaults are not passed."""
    names = [argument.name for argument in operation.default._schema.arguments]
    place = names.index("is_causal") if "is_causal" in names else len(args)
    return place < len(args) and bool(args[place])


def _visible_share(queries: int, keys: int) -> float:
    """Part of the pairs that a causal mask leaves where the queries are the last of the keys."""
    return 1 - (queries - 1) / (2 * keys)


def countable_attention(tower: Any) -> AbstractContextManager[None]:
    """Has a vision tower attend by operations that have a formula, which flash-attn's kernels do not."""
    used = tower.config._attn_implementation
    return attention(tower.config, SEGMENT_ATTENTION if used.startswith("flash") else used)


def _counted_attention(
    module: nn.Module,
    query_BHLD: Tensor,
    key_BHSD: Tensor,
    value_BHSD: Tensor,
    attention_mask: Tensor | None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention by the one fused operation that torch has a formula and a meta kernel for."""
    causal = module.is_causal if is_causal is None else is_causal
    output_BHLD = _ATTENTION(query_BHLD, key_BHSD, value_BHSD, 0.0, bool(causal))[0]
    return output_BHLD.transpose(1, 2), None


AttentionInterface.register(COUNTED_ATTENTION, _counted_attention)


class _GridsStayReal(TorchFunctionMode):
    """Keeps the small integer tensors that say how a video is laid out on the CPU, where they have values.

    What is computed from them (places, weights of a table of positions) goes to the meta device where it meets what is
    there.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.tensor and torch.device(kwargs.get("device") or "cpu").type == "meta":
            kwargs = {**kwargs, "device": "cpu"}
        devices = {part.device.type for part in tree_leaves((args, kwargs)) if isinstance(part, Tensor)}
        if devices == {"cpu", "meta"}:
            args, kwargs = tree_map_only(Tensor, lambda part: part.to("meta"), (args, kwargs))
        return func(*args, **kwargs)


def on_meta(model_class: type[PreTrainedModel], config: Any, dtype: torch.dtype) -> PreTrainedModel:
    """The model without memory for its weights, ready to be counted."""
    with torch.device("meta"):
        model = model_class._from_config(config, dtype=dtype, attn_implementation=COUNTED_ATTENTION).eval()
    tower = model.get_submodule("model.visual")
    tower.config._attn_implementation = SEGMENT_ATTENTION
    return model


@torch.no_grad()
def count_vision(model: Any, grid: Sequence[int], *, events: Sequence[int] | None = None) -> tuple[Work, int]:
    """Counts the vision tower and the compression of one video on shapes alone.

    Every temporal grid is counted: which of them are equal cannot be seen on shapes.

    Args:
        model: From `on_meta`; stock, or compressed without ``duplicates``.
        grid: Temporal grids, height and width in patches.
        events: Event id of each temporal grid.

    Returns:
        The work and the number of visual tokens that come out.
    """
    with WorkCounter() as counter:
        features = encode_shapes(model, grid, events=events)
    return counter.work, sum(len(video) for video in features)


def encode_shapes(model: Any, grid: Sequence[int], *, events: Sequence[int] | None = None) -> Any:
    """What the vision tower and the compression make of one video, on shapes alone; see `count_vision`."""
    vision = model.config.vision_config
    patch = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    pixels = torch.empty(grid[0] * grid[1] * grid[2], patch, dtype=model.dtype, device="meta")
    planning = {} if events is None else {"video_grid_events": torch.tensor([list(events)])}
    with _GridsStayReal():
        return model.model.get_video_features(pixels, torch.tensor([list(grid)]), **planning).pooler_output


@torch.no_grad()
def count_language(model: Any, prompt_tokens: int) -> tuple[Work, Work]:
    """Counts reading a prompt and, after it, one token, each with the logits of its last token.

    Args:
        model: From `on_meta`.
        prompt_tokens: Length of the prompt, visual tokens included.

    Returns:
        The work of the prefill and of one decoding step.
    """
    works, cache = [], None
    for length in (prompt_tokens, 1):
        embeddings = torch.empty(1, length, model.config.text_config.hidden_size, dtype=model.dtype, device="meta")
        positions = torch.empty(3, 1, length, dtype=torch.long, device="meta")
        with WorkCounter() as counter:
            output = model.model.language_model(
                inputs_embeds=embeddings, position_ids=positions, past_key_values=cache, use_cache=True
            )
            model.lm_head(output.last_hidden_state[:, -1:])
        cache = output.past_key_values
        works.append(counter.work)
    return works[0], works[1]


def measure_ceilings(
    device: torch.device, dtype: torch.dtype, *, seconds: float = 1.0, clock: Callable[[], float] = time.perf_counter
) -> Ceilings:
    """Measures the best throughput of a large matrix product and of a large copy.

    Args:
        device: Of the model.
        dtype: Of its weights.
        seconds: How long to try each.
        clock: What is read before and after.
    """
    side, length = (8192, 1 << 29) if device.type == "cuda" else (2048, 1 << 26)
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    product = torch.empty_like(a)
    source = torch.zeros(length, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return clock()

    def least_seconds(run: Callable[[], object]) -> float:
        timer = Timer("run()", globals={"run": run}, timer=now, num_threads=torch.get_num_threads())
        return min(timer.blocked_autorange(min_run_time=seconds).times)

    return Ceilings(
        flops=2 * side**3 / least_seconds(lambda: torch.mm(a, b, out=product)),
        bandwidth=2 * length / least_seconds(lambda: target.copy_(source)),
    )
