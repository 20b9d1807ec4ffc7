"""Every test of the project runs offline, on the CPU unless MARC_TEST_GPU=1, and fails if it logs an ERROR.

None is held to a time of the clock, which other work on the machine would decide.
"""

import gc
import logging
import os
from collections.abc import Generator
from contextlib import suppress

os.environ.update(HF_HUB_OFFLINE="1", WANDB_MODE="disabled", TOKENIZERS_PARALLELISM="false")
if os.environ.get("MARC_TEST_GPU") != "1":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pytest

with suppress(ModuleNotFoundError):  # vLLM's environment goes without
    import hypothesis

    hypothesis.settings.register_profile("busy machine", deadline=None)
    hypothesis.settings.load_profile("busy machine")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """None for files that are named: one process is through with them before others have imported torch.

    Nor for what a marker chooses, such as ``-m slow``, which starts several processes itself, and on a GPU.
    """
    are_files = all(Path(argument.partition("::")[0]).is_file() for argument in config.args)
    is_chosen = config.option.markexpr != "not slow" or os.environ.get("MARC_TEST_GPU") == "1"
    return 0 if are_files or is_chosen else None


def pytest_collection_finish() -> None:
    """Has collections of garbage pass over what stays for the whole run: thousands of tests and large libraries."""
    gc.collect()
    gc.freeze()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """True for files without tests for vLLM where these are asked for: its environment lacks what others import."""
    is_for_vllm = collection_path.suffix != ".py" or collection_path.stem == "test_as_vllm"
    is_for_vllm = is_for_vllm or "vllm" in collection_path.parts
    return True if config.option.markexpr == "vllm" and not is_for_vllm else None


@pytest.fixture(autouse=True)
def said_as_much_as_by_default():
    """Commands that ran in this process, ``-q`` among them, leave its logger and environment to the next test."""
    logger = logging.getLogger("marc")
    logger.setLevel(logging.NOTSET)
    for handler in [each for each in logger.handlers if each.name == "marc.cli"]:
        logger.removeHandler(handler)
    for name in ("TRANSFORMERS_VERBOSITY", "HF_HUB_DISABLE_PROGRESS_BARS"):
        os.environ.pop(name, None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escapes half characters, which tests of hostile names print and processes of tests cannot tell each other."""
    report = yield
    report.sections = [(name, _utf8(text)) for name, text in report.sections]
    if isinstance(report.longrepr, tuple) or report.longrepr is None:
        return report
    told = str(report.longrepr)
    if told != _utf8(told):
        report.longrepr = _utf8(told)
    return report


def _utf8(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


@pytest.fixture(autouse=True)
def no_error_is_logged(caplog: pytest.LogCaptureFixture):
    """A library that only logs what went wrong must still fail the test."""
    yield
    errors = [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.ERROR]
    assert not errors, errors
