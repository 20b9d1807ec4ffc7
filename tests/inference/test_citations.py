import numpy as np
from make_videos import frame_number, numbered_frames, write_video
from PIL import Image

from marc.inference.citations import save_citations
from marc.types import Answer, Event, ShownVideo


def shown(source, *events):
    return ShownVideo(str(source), "video", 0.0, 9.0, (), (), (), events, (0.5,) * len(events), 0, 0, None, 0, 0)


def test_each_event_has_a_picture_from_its_middle(tmp_path):
    first, second = tmp_path / "a.mp4", tmp_path / "b.mp4"
    write_video(first, numbered_frames(60), fps=10)
    write_video(second, numbered_frames(90)[30:], fps=10)
    videos = (
        shown(first, Event(0.0, 2.04), Event(4.0, 5.04)),
        shown(tmp_path / "none.png"),
        shown(second, Event(1, 2.1)),
    )
    files = save_citations(tmp_path / "pictures", Answer("", "", videos=videos))
    assert [file.name for file in files] == ["01_a_1.0s.jpg", "02_a_4.5s.jpg", "03_b_1.6s.jpg"]
    assert [frame_number(np.asarray(Image.open(file))) for file in files] == [10, 45, 45]
    assert sorted(tmp_path.joinpath("pictures").iterdir()) == files
