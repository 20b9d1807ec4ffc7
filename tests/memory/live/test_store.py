"""What readers make of a folder that somebody else has written, or damaged."""

import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from marc.memory.live import LiveOptions, StoredWatch, find_watch, watch_folder
from marc.memory.live.records import packed
from marc.memory.live.store import LiveStore

SETTINGS = {"format": 1, "name": "camera", "source": "", "embedder": "e", "precision": "fp32", "rate": 0.0}
EVENT = {"kind": "event", "number": 0, "start": 0, "end": 2, "parts": 1, "dropped": 0, "seconds": [0], "size": [8, 8]}
VECTOR = np.array([0.6, 0.8], np.float32)
PICTURES = [b"thumbnail", b"frame"]


@pytest.fixture
def written(tmp_path):
    """Writes a folder with some records of events, and reads it."""

    def write(*records: bytes, settings=SETTINGS):
        (tmp_path / "watch.json").write_text(settings if isinstance(settings, str) else json.dumps(settings))
        (tmp_path / "events.0.log").write_bytes(b"".join(records))
        return StoredWatch(tmp_path).snapshot()

    return write


def test_a_whole_event_is_read(written):
    (event,) = written(packed(EVENT, VECTOR, PICTURES)).events
    assert event.thumbnail() == b"thumbnail"
    assert [frame.jpeg for frame in event.frames()] == [b"frame"]


def test_a_memory_that_was_deleted_and_begun_anew_is_read_anew(written, tmp_path):
    written(packed(EVENT, VECTOR, PICTURES))
    reader = StoredWatch(tmp_path)
    assert len(reader.snapshot().events) == 1
    for file in tmp_path.iterdir():
        file.unlink()
    with pytest.raises(ValueError, match="nothing is watched under this name"):
        reader.snapshot()
    written(settings=json.dumps({**SETTINGS, "embedder": "another"}))
    assert reader.snapshot().events == () and reader.settings["embedder"] == "another"


@pytest.mark.parametrize(
    "change",
    [
        {"kind": None, "start": "soon"},
        {"start": "soon"},
        {"start": 3},
        {"end": None},
        {"seconds": [0, 1]},
        {"seconds": 5},
        {"size": [8]},
        {"number": []},
        {"replaces": [7]},
        {"parts": "many"},
    ],
)
def test_an_event_that_cannot_be_is_one_error(written, change):
    record = packed({**EVENT, **change}, VECTOR, PICTURES)
    if change.get("kind", "event") is None:
        assert not written(record).events  # a kind of a later version
        return
    with pytest.raises(ValueError, match=r"events\.0\.log: a record says what none can"):
        written(record)


@pytest.mark.parametrize("vector", [None, np.array([3, 4], np.float32), np.array([np.nan, 1], np.float32)])
def test_a_vector_that_cannot_be_is_one_error(written, vector):
    with pytest.raises(ValueError, match=r"events\.0\.log"):
        written(packed(EVENT, vector, PICTURES))


def test_vectors_of_two_models_are_one_error(written):
    other = {**EVENT, "number": 1, "start": 2, "end": 4}
    with pytest.raises(ValueError, match="different dimensions"):
        written(packed(EVENT, VECTOR, PICTURES), packed(other, np.array([0, 0, 1], np.float32), PICTURES))


@pytest.mark.parametrize("settings", ["", "[]", "{", '{"format": 99}', '{"format": 1}', "null"])
def test_a_folder_of_another_format_is_one_error(written, settings):
    with pytest.raises(ValueError, match=r"json|format"):
        written(settings=settings)


def test_any_changed_byte_is_noticed_or_changes_nothing(written):
    records = [
        packed({**EVENT, "number": number, "start": 2 * number, "end": 2 * number + 2}, VECTOR, PICTURES)
        for number in range(3)
    ]
    whole, rng = b"".join(records), np.random.default_rng(0)
    for place in rng.integers(0, len(whole), 150).tolist():
        content = bytearray(whole)
        content[place] ^= 1 << int(rng.integers(8))
        events = written(bytes(content)).events
        assert {each.number for each in events} <= {0, 1, 2}
        assert len(events) >= 2
        intact = 0
        for each in events:
            with suppress(ValueError):
                intact += each.record.pictures() == PICTURES
        assert intact >= 2


@pytest.mark.parametrize("settings", ["[]", '{"format": 1}', json.dumps({**SETTINGS, "rate": None})])
def test_who_goes_on_with_a_folder_of_something_else_is_told(settings, tmp_path):
    folder = tmp_path / "camera"
    folder.mkdir()
    (folder / "watch.json").write_text(settings)
    with pytest.raises(ValueError, match=r"not a memory of format|which nobody has written so"):
        LiveStore(folder, SETTINGS, LiveOptions())


def test_a_folder_without_a_memory_hides_no_name(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "camera").mkdir()
    assert find_watch("camera") == tmp_path / "data" / "marc" / "watch" / "camera"
    (tmp_path / "camera" / "watch.json").write_text(json.dumps(SETTINGS))
    assert find_watch("camera") == Path("camera")


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b", "/a", ".hidden"])
def test_a_name_leads_nowhere_else(name, tmp_path):
    with pytest.raises(ValueError, match="is called by letters"):
        watch_folder(name, tmp_path)
