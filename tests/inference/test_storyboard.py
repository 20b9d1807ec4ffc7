import pytest
from matplotlib.figure import Figure
from PIL import Image

from marc import VideoAssistant
from marc.inference.query import Query
from marc.inference.selectors import UniformSelector
from marc.inference.storyboard import check_storyboard, save_storyboard


def test_a_storyboard_shows_what_was_seen_without_looking_again(remembering, clip, tmp_path, monkeypatch):
    ((answer, seen),) = remembering.answer_and_show([Query(clip, "What happens in scene 2?")])
    monkeypatch.setattr(remembering.selector, "remember", lambda video: pytest.fail("retrieved again"))
    save_storyboard(tmp_path / "board.png", "What?", answer, seen)
    assert Image.open(tmp_path / "board.png").size[0] == 1600


def test_a_storyboard_without_a_memory_is_drawn(remembering, clip, tmp_path):
    remembering.selector = UniformSelector()
    ((answer, seen),) = remembering.answer_and_show([Query(clip, "What?")])
    assert seen[0].retrieval is None
    save_storyboard(tmp_path / "board.png", "What?", answer, seen)
    assert Image.open(tmp_path / "board.png").size[0] == 1600


def test_what_was_merged_can_be_told_apart_without_colours(remembering, clip, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path: drawn.append(figure))
    ((answer, seen),) = remembering.answer_and_show([Query(clip, "What happens in scene 2?")])
    save_storyboard(tmp_path / "board.png", "What?", answer, seen)
    time_line, *frames = drawn[0].axes
    numbers, seconds = zip(*(axes.get_title().removesuffix(" s").split(" · ") for axes in frames), strict=True)
    assert [float(second) for second in seconds] == pytest.approx(seen[0].video.patches.frame_seconds, abs=0.051)
    merged = seen[0].video.members.numpy().repeat(2)[: len(frames)] + 1
    assert [int(number) for number in numbers] == merged.tolist()
    assert {str(number) for number in merged} <= {text.get_text() for text in time_line.texts}


def test_what_a_rule_left_nothing_of_is_grey_and_has_no_number(checkpoint, clip, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path: drawn.append(figure))
    assistant = VideoAssistant.from_pretrained(
        checkpoint, memory=None, device="cpu", compression={"layout": "last", "visual_tokens": 4}
    )
    ((answer, seen),) = assistant.answer_and_show([Query(clip, "What?")])
    grids = seen[0].video.patches.grid_thw[0]
    assert answer.videos[0].grid_groups == (-1,) * (grids - 2) + (grids - 2, grids - 1)
    save_storyboard(tmp_path / "board.png", "What?", answer, seen)
    time_line, *frames = drawn[0].axes
    numbers = [axes.get_title().split(" · ")[0] for axes in frames]
    assert numbers == ["–"] * (2 * grids - 4) + [str(grids - 1)] * 2 + [str(grids)] * 2
    assert "grey: no token of it was kept" in time_line.get_xlabel()


@pytest.mark.parametrize(("name", "named"), [("board.docx", "ending"), ("missing/board.png", "missing")])
def test_what_cannot_be_drawn_is_refused_beforehand(name, named, tmp_path):
    with pytest.raises(ValueError, match=named):
        check_storyboard(tmp_path / name)
