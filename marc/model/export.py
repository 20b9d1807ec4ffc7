"""A model as one plain folder: adapters merged, a model card, and if wanted as transformers' own classes."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from marc.io import make_durable, make_folders, open_as_usual, paths_below, write_text
from marc.model.checkpoints import loading_quietly
from marc.model.loading import load_model, stored_dtype
from marc.model.modeling import CompressedVLM
from marc.model.processing import CompressedProcessor

CARD = "README.md"


def export_model(
    name: str, output: str | Path, *, plain: bool = False, dtype: str | None = None, results: str = ""
) -> Path:
    """Writes a model, its processor and a model card; whole or not at all, with the rights that new files get.

    Args:
        name: As `marc.load_model` takes it; adapters are merged into their base.
        output: A folder that is not there yet, or is empty.
        plain: As transformers' own classes: loads without marc, and then compresses nothing.
        dtype: Of the weights; None: as they are stored.
        results: What the card says of evaluations, in Markdown.

    Returns:
        The folder.

    Raises:
        ValueError: If the folder holds something, or the model cannot be loaded.
        OSError: If it cannot be written.
    """
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"{output} is there and not empty; name another folder")
    model, processor = load_model(name, device="cpu", dtype=dtype or stored_dtype(name))
    make_folders(output.parent)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as temporary:
        folder = Path(temporary) / "model"
        folder.mkdir()
        _save(folder, model, processor, plain)
        write_text(folder / CARD, model_card(name, output.name, model, plain, results))
        for path in paths_below(folder):
            if path.is_file():
                open_as_usual(path)
        make_durable(folder)
        if output.exists():
            output.rmdir()
        folder.rename(output)
    return output


def model_card(name: str, title: str, model: CompressedVLM, plain: bool, results: str = "") -> str:
    """What a model's page says.

    Args:
        name: What it was exported from.
        title: What it is called.
        model: It.
        plain: See `export_model`.
        results: Of evaluations, in Markdown.
    """
    told = "\n".join(f"| `{key}` | `{value}` |" for key, value in _told(model).items())
    loaded = _PLAIN_USE if plain else _USE
    parts = [
        "---",
        *([f"base_model: {name}"] if name.count("/") == 1 and not Path(name).exists() else []),
        "library_name: transformers",
        "pipeline_tag: video-text-to-text",
        "tags: [marc, video, token-compression]",
        "---",
        f"# {title}\n",
        f"A {model.family.title} for questions about videos, exported from `{Path(name).name}` by `marc export`.\n",
        "| read with | |",
        "|---|---|",
        f"{told}\n",
        f"{loaded.format(title=title)}\n",
        *([f"## Evaluation\n\n{results}\n"] if results else []),
    ]
    return "\n".join(parts)


_USE = """```python
from marc import VideoAssistant

print(VideoAssistant.from_pretrained("{title}").ask("film.mp4", "What happens first?").answer)
```

`marc ask --model {title} film.mp4 "What happens first?"` does the same; `marc serve --model {title}` serves it."""
_PLAIN_USE = """It loads as transformers' own class, which reads every visual token. To have it read as said above:
`marc ask --model {title}` with these options."""


def _told(model: CompressedVLM) -> dict[str, Any]:
    """What says how the model is read: the compression where it is not the default, and the prompt."""
    compression, default = model.compression, type(model.compression)()
    changed = {
        field.name: getattr(compression, field.name)
        for field in fields(compression)
        if field.name in ("layout", "target_frames")
        or getattr(compression, field.name) != getattr(default, field.name)
    }
    return {**changed, "prompt_style": model.config.prompt_style}


def _save(folder: Path, model: CompressedVLM, processor: CompressedProcessor, plain: bool) -> None:
    with loading_quietly():
        model.save_pretrained(folder)
    if not plain:
        processor.save_pretrained(folder)
        return
    stock = model.family.stock
    own = {field.name for field in fields(stock.load("config"))}
    values: Mapping[str, Any] = {key: value for key, value in model.config.to_dict().items() if key in own}
    config = stock.load("config")(**values)
    config.architectures = [stock.names["generator"]]
    config.save_pretrained(folder)
    stock.load("processor")(
        processor.image_processor,
        processor.tokenizer,
        processor.video_processor,
        chat_template=processor.chat_template,
    ).save_pretrained(folder)
