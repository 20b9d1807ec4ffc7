"""The page's own routes, as its scripts use them; `test_page_browser` has the page itself in a browser."""

import base64
import io
import json
import re

import httpx
import numpy as np
import pytest
from make_videos import numbered_frames
from PIL import Image
from running_server import Running, asks

from marc import VideoAssistant
from marc.memory.library import MemoryLibrary
from marc.memory.options import MemoryOptions
from marc.serving.page import FILES, STATIC
from marc.types import GenerationOptions
from marc.video import write_video

SHORT = GenerationOptions(max_new_tokens=6)
LONG = [(level, 99, 250 - level) for level in range(0, 250, 12)]
"""Scenes of a video that takes a while to be cut."""
CUT = MemoryOptions(min_event_seconds=1, max_event_seconds=2, seconds_per_frame=0.5)


def load(**options):
    return VideoAssistant.from_pretrained(generation=SHORT, device="cpu", dtype="float32", **options)


def scenes(path, seconds, colours):
    """A video of plain scenes of equal length."""
    frames = np.zeros((len(colours) * seconds * 5, 56, 56, 3), np.uint8)
    for index, colour in enumerate(colours):
        frames[index * seconds * 5 : (index + 1) * seconds * 5] = colour
    write_video(path, frames, fps=5)
    return path


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    scenes(folder / "a.mp4", 2, [(250, 10, 10), (10, 250, 10), (10, 10, 250)])
    scenes(folder / "b.mp4", 2, [(250, 250, 10), (10, 250, 250)])
    Image.fromarray(numbered_frames(4, 56, 56)[3]).save(folder / "picture.png")
    (folder / "text.mp4").write_text("no video")
    return folder


@pytest.fixture(scope="module")
def running(videos, tmp_path_factory):
    server = Running(load(memory=CUT), tmp_path_factory.mktemp("server"), allowed=(videos,), page=True)
    yield server
    server.stop()


def post(server, path, **body):
    return httpx.post(f"{server.url}{path}", json=body, timeout=60)


def told(reply):
    """The messages of a stream."""
    return [json.loads(line.removeprefix("data: ")) for line in reply.text.splitlines() if line]


def upload(server, path):
    return server.client.files.create(file=path, purpose="user_data").id


def picture(url):
    head, _, content = url.partition(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


@pytest.mark.parametrize("path", FILES)
def test_the_page_forbids_what_it_does_not_need(running, path):
    reply = httpx.get(running.url + path)
    assert reply.status_code == 200 and reply.text == (STATIC / FILES[path]).read_text()
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert reply.headers["x-content-type-options"] == "nosniff" and reply.headers["x-frame-options"] == "DENY"


def test_the_page_names_no_other_address_and_holds_no_markup_in_its_scripts():
    texts = {file.name: file.read_text() for file in STATIC.iterdir()}
    assert set(texts) == set(FILES.values())
    addresses = {found for text in texts.values() for found in re.findall(r"https?://[^\s\"']*", text)}
    assert addresses == {"http://www.w3.org/2000/svg"}
    for text in texts.values():
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|\son\w+=|\sstyle=", text)


def test_a_server_has_no_page_unless_it_is_asked_for(videos, tmp_path):
    server = Running(load(memory=None), tmp_path)
    try:
        assert [httpx.get(server.url + path).status_code for path in ("/", "/page/settings")] == [404, 404]
    finally:
        server.stop()


def test_events_come_with_key_frames_after_the_shares_that_were_read(running, videos):
    name = upload(running, videos / "a.mp4")
    *shares, last = told(post(running, "/page/events", file=name))
    assert shares[0] == {"share": 0.0} and shares[-1] == {"share": 1.0}
    assert [one["share"] for one in shares] == sorted(one["share"] for one in shares)
    events = last["events"]
    assert [one["start"] for one in events] == [0, *(one["end"] for one in events[:-1])]
    assert events[-1]["end"] == last["duration"] == 6 and {one["score"] for one in events} == {None}
    brightest = [np.asarray(picture(one["picture"])).mean((0, 1)).argmax() for one in events]
    assert brightest == sorted(brightest) and set(brightest) == {0, 1, 2}, "red, then green, then blue"


def test_scores_are_for_a_question_and_what_is_known_is_not_cut_again(running, videos):
    name = upload(running, videos / "a.mp4")
    post(running, "/page/events", file=name)
    question = "What happens in the red scene?"
    (only,) = told(post(running, "/page/events", file=name, question=question))
    answer = running.post(messages=asks(name, question)).json()
    found = {(one["start"], one["end"]): one["score"] for one in answer["marc"]["events"]}
    scores = {(one["start"], one["end"]): one["score"] for one in only["events"]}
    assert found and all(scores[event] == pytest.approx(score) for event, score in found.items())


@pytest.mark.parametrize(
    ("file", "status", "message"),
    [
        ("file-" + "0" * 32, 404, "there is no file"),
        ("/etc/passwd", 403, "no such file below a folder that is allowed"),
        ("https://example.com/a.mp4", 400, "addresses are not fetched"),
        ("{videos}/text.mp4", 400, "FFmpeg cannot open it"),
    ],
)
@pytest.mark.parametrize("path", ["/page/events", "/page/frames"])
def test_what_cannot_be_read_is_a_clear_error(running, videos, path, file, status, message):
    reply = post(running, path, file=file.format(videos=videos), seconds=[0])
    assert (reply.status_code, message in reply.json()["error"]["message"]) == (status, True), reply.text
    assert str(videos) not in reply.text


def test_what_has_no_events_is_told(running, videos, tmp_path):
    (only,) = told(post(running, "/page/events", file=upload(running, videos / "picture.png")))
    assert only["events"] == [] and only["remark"] == "A picture has no events."
    server = Running(load(memory=None), tmp_path, allowed=(videos,), page=True)
    try:
        (only,) = told(post(server, "/page/events", file=str(videos / "a.mp4")))
        assert only["events"] == [] and "does not cut" in only["remark"]
        assert not httpx.get(f"{server.url}/page/settings").json()["has_memory"]
        refused = post(server, "/page/search", question="red", files=[])
        assert refused.status_code == 400 and "nothing to search" in refused.text
    finally:
        server.stop()


def test_frames_are_those_of_their_times(running, videos):
    reply = post(running, "/page/frames", file=str(videos / "a.mp4"), seconds=[0.5, 3, 5.9])
    means = [np.asarray(picture(one)).mean((0, 1)).argmax() for one in reply.json()["pictures"]]
    assert means == [0, 1, 2]


@pytest.mark.parametrize(
    ("seconds", "message"),
    [([], "at least 1"), ([0.0] * 65, "65 frames at once; at most 64"), ([2, 1], "the video"), (["x"], "number")],
)
def test_frames_that_cannot_be_are_refused(running, videos, seconds, message):
    reply = post(running, "/page/frames", file=str(videos / "a.mp4"), seconds=seconds)
    assert reply.status_code == 400 and message in reply.json()["error"]["message"], reply.text


@pytest.mark.parametrize("second", ["NaN", "Infinity", "1e999", "-1"])
def test_times_that_are_none_are_no_error_of_the_server(running, videos, second):
    body = f'{{"file": "{videos / "a.mp4"}", "seconds": [{second}]}}'
    reply = httpx.post(f"{running.url}/page/frames", content=body, headers={"content-type": "application/json"})
    assert reply.status_code in (200, 400), reply.text


def test_only_videos_that_a_client_can_name_are_searched(running, videos):
    names = [upload(running, videos / name) for name in ("a.mp4", "b.mp4")]
    for name in names:
        post(running, "/page/events", file=name)
    found = post(running, "/page/search", question="a red scene", files=names, k=4).json()
    scores = [one["score"] for one in found["events"]]
    assert len(scores) == 4 and scores == sorted(scores, reverse=True) and found["warnings"] == []
    assert all(picture(one["picture"]).width == 160 for one in found["events"])
    mine = post(running, "/page/search", question="a red scene", files=names[1:], k=9).json()["events"]
    assert [one["file"] for one in mine] == [names[1]] * 2
    assert post(running, "/page/search", question="a red scene").json()["events"] == []
    gone = post(running, "/page/search", question="red", files=["file-" + "0" * 32]).json()
    assert gone["warnings"] == ["1 of your videos are left out: they are gone or not cut into events"]
    assert post(running, "/page/search", question=" ", files=names).status_code == 400


def test_the_library_is_searched_asked_and_not_removed(videos, tmp_path):
    assistant, library = load(memory=CUT), MemoryLibrary(tmp_path / "library")
    film = scenes(tmp_path / "film.mp4", 2, [(250, 10, 10), (10, 250, 10)])
    changed = scenes(tmp_path / "changed.mp4", 2, [(10, 10, 250), (10, 250, 10)])
    library.add([assistant.remember(film), assistant.remember(changed)])
    scenes(changed, 2, [(1, 1, 1), (200, 200, 200)])
    server = Running(assistant, tmp_path / "server", page=True, library=str(tmp_path / "library"))
    try:
        reply = post(server, "/page/search", question="a red scene")
        events = reply.json()["events"]
        assert {one["name"] for one in events} == {"film.mp4"} and str(tmp_path) not in reply.text
        assert np.asarray(picture(events[0]["picture"])).mean((0, 1)).argmax() in (0, 1)
        name = events[0]["file"]
        (only,) = told(post(server, "/page/events", file=name))
        assert only["events"], "its memory lay beside it: it is not cut again"
        assert server.post(messages=asks(name)).json()["marc"]["videos"][0]["end"] == 4
        assert httpx.delete(f"{server.url}/v1/files/{name}").status_code == 404 and film.is_file()
    finally:
        server.stop()


def test_a_library_that_is_not_there_is_an_error_without_its_address(videos, tmp_path):
    server = Running(load(memory=CUT), tmp_path / "server", page=True, library=str(tmp_path / "none"))
    try:
        reply = post(server, "/page/search", question="a red scene")
        assert reply.status_code == 400 and reply.json()["error"]["message"].startswith("the library: there is no")
    finally:
        server.stop()


def test_whoever_goes_away_ends_the_cutting(tmp_path):
    long = scenes(tmp_path / "long.mp4", 30, LONG)
    server = Running(load(memory=MemoryOptions()), tmp_path / "server", allowed=(tmp_path,), page=True)
    try:
        body = {"file": str(long)}
        with httpx.stream("POST", f"{server.url}/page/events", json=body, timeout=60) as reply:
            shares = (json.loads(line[6:])["share"] for line in reply.iter_lines() if line)
            assert next(share for share in shares if share > 0) < 0.5
        (*_, last) = told(post(server, "/page/events", file=str(scenes(tmp_path / "a.mp4", 2, [(9, 9, 9)]))))
        assert last["events"]
        assert [path.name[:5] for path in (tmp_path / "server" / "memories").iterdir()] == ["a.mp4"]
    finally:
        server.stop()


def test_questions_are_answered_while_a_video_is_cut(tmp_path):
    long, short = scenes(tmp_path / "long.mp4", 30, LONG), scenes(tmp_path / "a.mp4", 2, [(9, 9, 9)])
    server = Running(load(memory=MemoryOptions()), tmp_path / "server", allowed=(tmp_path,), page=True)
    try:
        post(server, "/page/events", file=str(short))
        with httpx.stream("POST", f"{server.url}/page/events", json={"file": str(long)}, timeout=60) as reply:
            lines = (line for line in reply.iter_lines() if line)
            next(lines)
            assert server.post(messages=asks(str(short))).status_code == 200
            assert told(post(server, "/page/events", file=str(short), question="red?"))[0]["events"]
            assert "share" in json.loads(next(lines)[6:])
    finally:
        server.stop()


def test_the_page_needs_no_key_but_what_it_asks_for_does(videos, tmp_path):
    server = Running(load(memory=None), tmp_path, allowed=(videos,), key="secret", page=True)
    try:
        assert all(httpx.get(server.url + path).status_code == 200 for path in FILES)
        for path in ("/page/events", "/page/frames", "/page/search"):
            assert post(server, path, file=str(videos / "a.mp4"), question="x").status_code == 401
        assert httpx.get(f"{server.url}/page/settings").status_code == 401
        headers = {"authorization": "Bearer secret", "host": "example.org"}
        assert httpx.get(f"{server.url}/page/settings", headers=headers).json()["max_frames"] == 64
    finally:
        server.stop()
