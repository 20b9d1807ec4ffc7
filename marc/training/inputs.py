"""Prompts of training rows: the files that they name, and their token ids.

A prompt names its files: ``{"type": "video", "video": path, "cuts": [seconds]}`` (``cuts``, where events begin, is
optional) or ``{"type": "image", "image": path}``. `marc.training.reader` reads them; what the model sees of one at a
budget is a `marc.inference.video_input.VideoInput`, planned exactly as at inference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from marc.compression import CompressionConfig
from marc.inference.backend import Backend
from marc.inference.prompts import Prompt
from marc.inference.video_input import VisualPatches, inputs_at
from marc.model import CompressedProcessor
from marc.training.reader import VisualReader, VisualSource

Messages = Sequence[Mapping[str, Any]]
"""A chat."""


def clean_messages(messages: Messages) -> list[dict[str, Any]]:
    """Messages without the empty fields that Arrow adds to parts of other types, which templates would render."""
    return [
        {
            **message,
            "content": message["content"]
            if isinstance(message["content"], str)
            else [{key: value for key, value in part.items() if value is not None} for part in message["content"]],
        }
        for message in messages
    ]


def visual_sources(messages: Messages | str) -> list[VisualSource]:
    """The files that a prompt names, in order; a plain text names none."""
    if isinstance(messages, str):
        return []
    sources = []
    for message in clean_messages(messages):
        parts = [] if isinstance(message["content"], str) else message["content"]
        for part in parts:
            path = part.get(part["type"])
            if part["type"] in ("video", "image") and isinstance(path, str):
                cuts = part.get("cuts")
                sources.append(VisualSource(part["type"], path, None if cuts is None else tuple(cuts)))
    return sources


def readable(messages: Messages | str) -> str:
    """A prompt as one text, for tables: files stand in brackets."""
    if isinstance(messages, str):
        return messages
    turns = []
    for message in clean_messages(messages):
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        texts = [part["text"] if part["type"] == "text" else f"[{part[part['type']]}]" for part in parts]
        turns.append(f"{message['role']}: {' '.join(texts)}")
    return "\n".join(turns)


def without_visuals(messages: Messages) -> list[dict[str, Any]]:
    """The prompt without its videos and images."""
    return [
        {**message, "content": message["content"]}
        if isinstance(message["content"], str)
        else {**message, "content": [part for part in message["content"] if part["type"] == "text"]}
        for message in clean_messages(messages)
    ]


def tokenize_prompt(processor: CompressedProcessor, messages: Messages | str, **template: Any) -> list[int]:
    """Token ids of a prompt, with one placeholder for each video or image.

    A plain text is taken as it is, without the chat template.
    """
    ids: list[int]
    if isinstance(messages, str):
        ids = processor.tokenizer(messages)["input_ids"]
        return ids
    text = processor.apply_chat_template(
        clean_messages(messages), add_generation_prompt=True, tokenize=False, **template
    )
    placeholders = text.count(processor.video_token) + text.count(processor.image_token)
    assert placeholders == len(visual_sources(messages)), "the chat template left a video or image out"
    ids = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def encoded_prompts(
    prompts: Sequence[Messages],
    files: Mapping[VisualSource, VisualPatches],
    engine: Backend,
    compression: CompressionConfig,
) -> list[Prompt]:
    """Prompts as an engine answers them, what they show encoded at a budget; each file once.

    Args:
        prompts: Chats.
        files: What was read of the files that they name; it stays as it is.
        engine: Encodes.
        compression: The budget.
    """
    own = {source: replace(patches, inputs={}) for source, patches in files.items()}  # the engine frees its pixels
    rows = [[own[source] for source in visual_sources(each)] for each in prompts]
    shown = inputs_at(rows, engine.processor, compression)
    engine.encode(list(dict.fromkeys(each for inputs in shown for each in inputs)))
    ids = [tuple(tokenize_prompt(engine.processor, each)) for each in prompts]
    return [Prompt(*each) for each in zip(ids, shown, strict=True)]


def prompt_length(reader: VisualReader, messages: Messages | str, budgets: Sequence[CompressionConfig]) -> int:
    """Tokens of a prompt at the largest of some budgets, without decoding its files."""
    files = [reader.look(source) for source in visual_sources(messages)]
    text = len(tokenize_prompt(reader.processor, messages)) - len(files)
    shown = (inputs_at([files], reader.processor, budget)[0] for budget in budgets)
    return text + max(sum(len(each.ids) for each in row) for row in shown)
