"""What transformers' engine answers, written by the main environment, and vLLM engines to compare with it."""

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

ROOT = Path(__file__).resolve().parents[3]
MAIN_PYTHON = Path(os.environ.get("MARC_MAIN_PYTHON", ROOT / ".venv" / "bin" / "python"))
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leaves out what needs vLLM where it is not installed."""
    reason = "needs vLLM: bash inference_script/setup_vllm.sh, then .venv-vllm/bin/python -m pytest -m vllm"
    for item in items:
        if item.get_closest_marker("vllm") and find_spec("vllm") is None:
            item.add_marker(pytest.mark.skip(reason=reason))


@dataclass(frozen=True)
class Expected:
    """Requests and what transformers answered.

    Attributes:
        folder: Holds them, and the checkpoint.
        items: What videos are to vLLM.
        cases: Prompts and outputs.
    """

    folder: Path
    items: dict[str, dict[str, Tensor]]
    cases: list[dict[str, Any]]

    @classmethod
    def of(cls, folder: Path) -> "Expected":
        items: dict[str, dict[str, Tensor]] = {}
        for name, value in load_file(folder / "items.safetensors").items():
            number, _, field = name.partition("/")
            items.setdefault(number, {})[field] = value
        return cls(folder, items, json.loads((folder / "cases.json").read_text()))

    @property
    def checkpoint(self) -> str:
        """Folder of the model."""
        return str(self.folder / "checkpoint")

    def request(self, case: dict[str, Any]) -> dict[str, Any]:
        """A case as vLLM takes it."""
        shown = [self.items[str(number)] for number in case["shown"]]
        return {"prompt_token_ids": case["ids"], "multi_modal_data": {"video": shown}}


@pytest.fixture(scope="session")
def written(tmp_path_factory) -> Path:
    """The folder into which the main environment writes."""
    if not MAIN_PYTHON.exists():
        pytest.skip(f"{MAIN_PYTHON}: no main environment (bash setup.sh); MARC_MAIN_PYTHON names its Python")
    folder = tmp_path_factory.mktemp("expected")
    script = Path(__file__).with_name("write_expected.py")
    environment = {**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
    subprocess.run([MAIN_PYTHON, script, folder], env=environment, check=True, timeout=800)
    return folder


@pytest.fixture(scope="session")
def world(written) -> Expected:
    """The embedded model about generated videos."""
    return Expected.of(written / "world")


@pytest.fixture(scope="session")
def backend() -> Any:
    """The embedded model in vLLM."""
    from marc.inference.vllm_backend import VllmBackend

    return VllmBackend.from_pretrained("tiny", duplicates=0.1)


@pytest.fixture(scope="session")
def stock(written) -> Callable[[str], Expected]:
    """Random weights of a family as transformers' own classes save them."""
    return lambda family: Expected.of(written / "stock" / family)


@pytest.fixture(scope="session")
def exported(written) -> Callable[[str], Expected]:
    """What `marc export` made: ``"whole"`` or ``"plain"``."""
    return lambda name: Expected.of(written / "exported" / name)
