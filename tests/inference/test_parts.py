"""An assistant put together from names: as now, and with the constructor's arguments of before."""

import pytest

from marc import VideoAssistant
from marc.inference.selectors import RetrievingSelector
from marc.memory.options import MemoryOptions, RetrievalOptions
from marc.model.tiny import build_tiny
from marc.types import GenerationOptions
from marc.video.options import FrameOptions

SHORT = GenerationOptions(max_new_tokens=4)


def warned_of_names():
    return pytest.warns(DeprecationWarning, match=r"VideoAssistant\.from_pretrained")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("device", "cpu"),
        ("dtype", "float32"),
        ("attn_implementation", "eager"),
        ("compression", {"layout": "frames"}),
        ("memory", True),
    ],
)
def test_what_would_not_change_a_loaded_model_is_refused(option, value):
    loaded = build_tiny()
    with warned_of_names():
        assert VideoAssistant(memory=False, loaded=loaded).backend.model is loaded[0]
    with warned_of_names(), pytest.raises(ValueError, match=option):
        VideoAssistant(loaded=loaded, **{"memory": False, option: value})


def test_the_constructor_still_takes_a_name_and_warns(stock_checkpoint, clip):
    assistant = VideoAssistant.from_pretrained(stock_checkpoint, memory=None, generation=SHORT, device="cpu")
    with warned_of_names() as warned:
        before = VideoAssistant(stock_checkpoint, memory=False, generation=SHORT, device="cpu", dtype="float32")
    assert [warning.filename for warning in warned] == [__file__]
    assert before.backend.compression == assistant.backend.compression
    assert before.ask(clip, "What is shown?").output == assistant.ask(clip, "What is shown?").output


def test_the_constructors_old_options_reach_the_parts(embedder, tmp_path):
    options, frames, told = MemoryOptions(segmenter="uniform"), FrameOptions(fps=1), []
    with warned_of_names():
        assistant = VideoAssistant(
            k="auto",
            embedder_name="encoder",
            memory_options=options,
            memory_folder=tmp_path,
            progress=told.append,
            frames=frames,
            prompt_style="short",
            loaded=build_tiny(),
            loaded_embedder=embedder,
        )
    selector = assistant.selector
    assert isinstance(selector, RetrievingSelector) and selector.embedder is embedder
    assert selector.retrieval == RetrievalOptions("auto", "encoder", str(tmp_path))
    assert (selector.options, selector.progress, assistant.frames) == (options, told.append, frames)
    with warned_of_names(), pytest.raises(TypeError, match="no_such_option"):
        VideoAssistant(memory=False, loaded=build_tiny(), no_such_option=1)
