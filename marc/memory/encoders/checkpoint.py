"""A checkpoint of transformers that embeds: its files, its network and its processor, read with all that is checked.

A checkpoint is foreign bytes: nothing of it is run, its sizes are looked at before memory is taken, and whatever goes
wrong is a `ValueError` that names it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from logging import LogRecord, getLogger
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch

from marc.hub import hub_answers, is_downloaded
from marc.io import message_of, read_json, reading
from marc.memory.text_tower import CONFIG_FILE, fingerprint_of

CONFIGURATION = "config.json"
_PROCESSORS = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")
_FILES = ("*.json", "*.jinja", "*.txt", "*.model", "*.safetensors")
_PASSING = {"transformers_version", "_name_or_path", "torch_dtype", "dtype"}
"""What a configuration says of who wrote it, and not of what is computed."""
_Kind = TypeVar("_Kind", bound="CheckpointEncoder")


@dataclass(frozen=True)
class CheckpointEncoder:
    """What the models of transformers have in common; see `marc.memory.encoders.interface.Encoder`.

    Attributes:
        name: As the user said it.
        model: The network, with its weights as they are stored until it is placed.
        processor: Makes its inputs.
        fingerprint: Of the stored weights, the configurations, and `reads`.
        reads: How inputs are made of questions and frames, beyond what the checkpoint says.
    """

    name: str
    model: Any
    processor: Any
    fingerprint: str
    reads: ClassVar[Mapping[str, Any]]

    @classmethod
    def load(cls: type[_Kind], folder: Path, name: str) -> _Kind:
        """Loads a network and its processor.

        Args:
            folder: Where its files are.
            name: What it is called in messages.

        Raises:
            ValueError: A file is missing, damaged, or does not fit the others.
        """
        from transformers import AutoProcessor

        from marc.model.chat_templates import check_template
        from marc.model.names import check_name

        check_name(str(folder))
        with reading(name, "checkpoint"):
            model = _read_model(folder)
            processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
            check_template(getattr(processor, "chat_template", None), name)
            said = {file: _lasting(read_json(folder / file)) for file in _PROCESSORS if (folder / file).is_file()}
            stored = {"config": _lasting(read_json(folder / CONFIGURATION)), "reads": dict(cls.reads)}
            return cls(name, model, processor, fingerprint_of(stored, said, model.state_dict()))

    def place(self, device: torch.device, precision: str) -> None:
        """Moves the network to where it runs; bf16 holds all its weights in it."""
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.model.eval().requires_grad_(False).to(device=device, dtype=dtype)

    def inputs(self, **parts: Any) -> dict[str, torch.Tensor]:
        """What the processor makes of texts, pictures and clips, where the network is."""
        made = self.processor(**parts, return_tensors="pt")
        return {name: value.to(self.model.device) for name, value in made.items() if isinstance(value, torch.Tensor)}


def _read_model(folder: Path) -> Any:
    """The network in a folder, whose files were checked."""
    from transformers import AutoConfig, AutoModel

    from marc.model.checkpoints import check_report, check_sizes, check_weights, loading_quietly

    with loading_quietly(), _quiet_defaults():
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        check_sizes(folder, config)
        model, report = AutoModel.from_pretrained(
            folder,
            config=config,
            dtype="auto",
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            use_safetensors=True,
            trust_remote_code=False,
        )
    check_report(str(folder), {kind: keys for kind, keys in report.items() if kind != "unexpected_keys"})
    check_weights(model, str(folder))
    return model


@contextmanager
def _quiet_defaults() -> Iterator[None]:
    """Keeps transformers from warning of numbers of tokens in SigLIP's default configuration, whatever is read."""
    logger = getLogger("transformers.configuration_utils")
    logger.addFilter(_is_worth_saying)
    try:
        yield
    finally:
        logger.removeFilter(_is_worth_saying)


def _is_worth_saying(record: LogRecord) -> bool:
    return "or an integer within the vocabulary" not in record.getMessage()


def model_type(folder: Path) -> str:
    """What kind of model the configuration in a folder is of; empty if it does not say."""
    said = read_json(folder / CONFIGURATION)
    return str(said.get("model_type") or "") if isinstance(said, dict) else ""


def hub_folder(repository: str, files: Sequence[str] = _FILES) -> Path:
    """The files of a repository of the Hugging Face hub, downloaded if need be.

    Raises:
        ValueError: They cannot be had; naming the way out.
    """
    from huggingface_hub import snapshot_download

    check_reachable(repository)
    try:
        return Path(snapshot_download(repository, allow_patterns=list(files)))
    except (OSError, ValueError) as error:
        first_line = message_of(error).partition("\n")[0]
        raise ValueError(f"{repository}: cannot get its files from the hub: {first_line}. {_WAY_OUT}") from error


def check_reachable(repository: str) -> None:
    """Refuses a repository that is neither downloaded nor on a hub that can be reached.

    Raises:
        ValueError: Saying so.
    """
    if not is_downloaded(repository, CONFIGURATION, CONFIG_FILE) and not hub_answers():
        raise ValueError(f"{repository}: no such folder, not downloaded, and the hub cannot be reached. {_WAY_OUT}")


_WAY_OUT = "Run once with network access, or copy a downloaded repository and pass its folder"


def _lasting(value: Any) -> Any:
    """A configuration without what changes with the version of whoever writes it."""
    if isinstance(value, dict):
        return {name: _lasting(each) for name, each in value.items() if name not in _PASSING}
    return [_lasting(each) for each in value] if isinstance(value, list) else value
