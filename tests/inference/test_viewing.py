"""What a question may be about: stretches of videos, several videos, pictures, and frames that are there."""

from unittest import mock

import numpy as np
import pytest
from make_videos import numbered_frames
from PIL import Image

from marc import Clip, Frames, VideoAssistant
from marc.inference.viewing import SIDE_BY_SIDE
from marc.types import Event, GenerationOptions, Retrieval
from marc.video import VideoError, read_frames, write_video
from marc.video.options import FrameOptions

SHORT = GenerationOptions(max_new_tokens=4)


@pytest.fixture(scope="module")
def assistant(stock_checkpoint) -> VideoAssistant:
    return VideoAssistant.from_pretrained(stock_checkpoint, memory=None, generation=SHORT, device="cpu")


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "picture.png"
    Image.fromarray(numbered_frames(8, 84, 56)[7]).save(path)
    return path


def test_only_the_stretch_that_is_asked_about_is_read(assistant, clip):
    answer = assistant.ask(clip, "What?", start=3, end=5.5)
    (shown,) = answer.videos
    assert (shown.start, shown.end) == (3.0, 5.5)
    assert min(shown.frame_seconds) >= 3.0 - 0.1 and max(shown.frame_seconds) < 5.5
    assert answer.frames == len(shown.frame_seconds) < assistant.ask(clip, "What?").frames
    assert assistant.ask(Clip(clip, 3, 5.5), "What?").output == answer.output


def test_of_the_stretch_the_memory_chooses_among_its_events(remembering, clip):
    """Scene 0 is what the question is nearest to, but it lies outside."""
    remembering.frames = FrameOptions(max_frames=16)
    answer = remembering.ask(clip, "What happens in scene 0?", start=5, end=11)
    assert all(5.0 <= event.start < event.end <= 11.0 for event in answer.events)
    assert all(5.0 - 0.1 <= second < 11.0 for second in answer.videos[0].frame_seconds)
    whole = remembering.ask(clip, "What happens in scene 0?", start=0)
    assert whole.events == remembering.ask(clip, "What happens in scene 0?").events == (Event(0.0, 4.0),)


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        (5, 5, r"scenes\.mp4: a stretch of a video needs 0 <= start < end, got start=5 and end=5"),
        (-1, None, "needs 0 <= start < end, got start=-1 and end=none"),
        (12, None, r"start=12 is behind the end of this 12\.00 s video"),
        (float("nan"), None, "needs 0 <= start < end"),
    ],
)
def test_a_stretch_that_is_none_is_refused(assistant, clip, start, end, message):
    with pytest.raises(ValueError, match=message):
        assistant.ask(clip, "What?", start=start, end=end)


def test_times_for_several_videos_stand_in_their_clips(assistant, clip):
    with pytest.raises(ValueError, match="start and end are for one file"):
        assistant.ask([clip, clip], "What?", start=1)
    answer = assistant.ask([Clip(clip, 0, 2), Clip(clip, 9)], "What?")
    assert [(shown.start, shown.end) for shown in answer.videos] == [(0.0, 2.0), (9.0, 12.0)]


def test_several_videos_and_pictures_are_shown_in_order(assistant, clip, picture, tmp_path):
    """Each as it would be alone; the counts are sums."""
    other = tmp_path / "other.mp4"
    write_video(other, numbered_frames(30), fps=10)
    together = assistant.ask([clip, picture, other], "What?")
    alone = [assistant.ask(each, "What?") for each in (clip, picture, other)]
    assert [shown.kind for shown in together.videos] == ["video", "image", "video"]
    assert [shown.source for shown in together.videos] == [str(clip), str(picture), str(other)]
    assert together.videos == tuple(answer.videos[0] for answer in alone)
    for count in ("frames", "visual_tokens_before", "visual_tokens_after", "prompt_tokens_after"):
        assert getattr(together, count) == sum(getattr(answer, count) for answer in alone)
    assert together.visual_tokens_budget is None, "a picture has no limit"
    assert assistant.ask([clip, other], "What?").visual_tokens_budget == sum(
        answer.visual_tokens_budget for answer in (alone[0], alone[2])
    )


def test_the_order_of_videos_matters_to_the_prompt(assistant, clip, picture):
    processor, model = assistant.backend.processor, assistant.backend.model
    asked = []
    with mock.patch.object(
        assistant.backend, "generate", side_effect=lambda prompts, *rest: [asked.append(prompts[0]) or [1]]
    ):
        assistant.ask([clip, picture], "What?")
        assistant.ask([picture, clip], "What?")
    orders = []
    for prompt in asked:
        ids = prompt.expanded(model)
        orders.append(ids.index(processor.video_token_id) < ids.index(processor.image_token_id))
    assert orders == [True, False]


def test_a_picture_is_read_once_and_costs_what_its_model_says(assistant, picture, monkeypatch):
    answer = assistant.ask(picture, "What?")
    (shown,) = answer.videos
    limits = assistant.pixel_limits
    cells = (84 // limits["factor"] or 1) * (56 // limits["factor"] or 1)
    assert (shown.kind, shown.frame_seconds, shown.visual_tokens_after) == ("image", (), shown.visual_tokens_before)
    assert shown.visual_tokens_after >= min(cells, 1) and answer.frames == 0
    monkeypatch.setattr("marc.inference.viewing.read_picture", lambda path: pytest.fail("read again"))
    assert assistant.ask(picture, "What?").output == answer.output
    with pytest.raises(ValueError, match=r"picture\.png: a picture has no start and no end"):
        assistant.ask(picture, "What?", start=1)


def test_a_picture_that_changes_is_read_again(assistant, tmp_path):
    file = tmp_path / "picture.png"
    for number in (1, 255):
        Image.fromarray(numbered_frames(256, 84, 56)[number]).save(file)
        seen = assistant.view(file, "What?")
        kept = seen.video.features
        assert assistant.view(file, "What?").video.features is kept
        if number == 1:
            before = kept
    assert not np.allclose(before, kept)


def test_given_frames_are_what_the_same_frames_of_the_file_are(assistant, clip):
    """Read at their final size, they are the frames that the assistant reads by itself."""
    seen = assistant.view(clip, "What?")
    frames = read_frames(clip, seen.selection.seconds, **assistant.pixel_limits)
    given = assistant.view(frames, "What?")
    assert given.video.patches.frame_seconds == seen.video.patches.frame_seconds
    assert given.video.plan == seen.video.plan
    np.testing.assert_array_equal(given.video.features, seen.video.features)
    assert assistant.ask(frames, "What?").output == assistant.ask(clip, "What?").output


@pytest.mark.parametrize("count", [1, 2, 7, 64, 90])
def test_given_frames_keep_their_times_up_to_the_limit(assistant, count):
    frames = Frames(numbered_frames(count), 100 + np.arange(count) ** 2 / 4, "camera 3")
    answer = assistant.ask(frames, "What?")
    (shown,) = answer.videos
    assert shown.source == "camera 3" and answer.frames % 2 == 0
    assert answer.frames == min(count + count % 2, 64)
    assert set(shown.frame_seconds) <= set(frames.seconds.tolist())
    assert shown.frame_seconds[0] == 100 and shown.frame_seconds[-1] == frames.seconds[-1] < shown.end


@pytest.mark.parametrize("seconds", [[], [1.0, 0.5], [-1.0, 0.0], [0.0, float("nan")]])
def test_frames_without_times_are_refused(assistant, seconds):
    frames = Frames(numbered_frames(len(seconds) or 1)[: len(seconds)], np.array(seconds), "camera 3")
    with pytest.raises(ValueError, match="camera 3: frames need times from 0 on that do not fall"):
        assistant.ask(frames, "What?")


def test_events_that_are_known_are_shown_and_share_what_they_may(assistant, clip):
    found = Retrieval((Event(1.0, 3.0), Event(9.0, 11.0)), (0.5, 0.25), (0, 1), (0.0,))
    for share, tokens in ((1.0, 4), (0.5, 2)):
        answer = assistant.ask(Clip(clip, found=found, share=share), "What?")
        (shown,) = answer.videos
        assert (shown.events, shown.scores) == (found.events, found.scores)
        assert shown.visual_tokens_after == shown.visual_tokens_budget == tokens
        assert all(any(e.start <= second < e.end for e in found.events) for second in shown.frame_seconds)
        assert not answer.warnings


def test_what_is_shown_says_where_each_grid_ended(remembering, clip):
    (shown,) = remembering.ask(clip, "What happens in scene 1?").videos
    assert len(shown.grid_events) == len(shown.grid_groups) == len(shown.frame_seconds) // 2
    assert list(shown.grid_events) == sorted(shown.grid_events)
    pairs = dict(zip(shown.grid_events, shown.grid_groups, strict=True))
    assert [pairs[event] for event in shown.grid_events] == list(shown.grid_groups), "one group an event"


def test_a_prompt_for_which_there_is_no_room_is_refused(checkpoint, clip):
    assistant = VideoAssistant.from_pretrained(
        checkpoint, memory=None, generation=SHORT, device="cpu", compression={"budget": "full"}
    )
    with pytest.raises(ValueError, match=r"the prompt has \d+ tokens, the model has room for 4096: ask about fewer"):
        assistant.ask([clip] * 100, "What?")


def test_a_file_that_is_missing_is_named(assistant, tmp_path):
    with pytest.raises(VideoError, match=r"gone\.mp4"):
        assistant.ask(tmp_path / "gone.mp4", "What?")


def test_several_at_once_are_what_each_is_alone_and_equal_ones_are_encoded_once(assistant, clip, picture):
    """More of them than are read side by side, videos, stretches, pictures and frames mixed."""
    stretches = [Clip(clip, start, start + 1.5) for start in range(SIDE_BY_SIDE + 2)]
    frames = read_frames(clip, [0.0, 1.0, 2.0, 3.0], **assistant.pixel_limits)
    asked = [(each, "What?") for each in [*stretches, picture, clip, frames, clip, picture]]
    assistant.forget()
    encoded = []
    encode = assistant.backend.encode
    with mock.patch.object(
        assistant.backend, "encode", side_effect=lambda v, c: (encoded.append(len(v)), encode(v, c))
    ):
        together = assistant.view_all(asked)
    assert sum(encoded) == len(asked) - 2 and max(encoded) == SIDE_BY_SIDE
    for (each, question), seen in zip(asked, together, strict=True):
        assistant.forget()
        alone = assistant.view(each, question)
        assert (seen.info, seen.video.ids, seen.report()) == (alone.info, alone.video.ids, alone.report())
        np.testing.assert_allclose(seen.video.features, alone.video.features, atol=1e-5)
