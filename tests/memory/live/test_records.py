"""What is read back of a file of records is what was written, whatever a kill or the disk did to its end."""

import numpy as np
import pytest

from marc.memory.live.records import DamagedRecordError, RecordFile, RecordWriter, packed

VECTOR = np.array([0.6, 0.8], np.float32)


def record(number: int) -> bytes:
    return packed({"kind": "event", "number": number}, VECTOR, [b"one" * number, b"two"])


def numbers(path) -> list[int]:
    return [each.head["number"] for each in RecordFile(path).new_records()]


def test_records_come_back_with_vectors_and_pictures(tmp_path):
    writer = RecordWriter(tmp_path / "a.log")
    writer.append(record(1) + record(2))
    first, second = RecordFile(tmp_path / "a.log").new_records()
    assert np.array_equal(first.vector, VECTOR)
    assert first.pictures() == [b"one", b"two"]
    assert second.pictures() == [b"oneone", b"two"]


def test_a_reader_gets_what_was_added_since(tmp_path):
    writer = RecordWriter(tmp_path / "a.log")
    reader = RecordFile(tmp_path / "a.log")
    writer.append(record(1))
    assert [each.head["number"] for each in reader.new_records()] == [1]
    assert not list(reader.new_records())
    writer.append(record(2))
    assert [each.head["number"] for each in reader.new_records()] == [2]


@pytest.mark.parametrize("left", [1, 30, 100, 200, -1])
def test_a_record_that_was_cut_off_is_left_out_and_written_over(tmp_path, left):
    path = tmp_path / "a.log"
    whole, torn = record(1), record(2)
    path.write_bytes(whole + torn[:left])
    assert numbers(path) == [1]
    writer = RecordWriter(path)
    assert path.read_bytes() == whole
    writer.append(record(3))
    assert numbers(path) == [1, 3]


def test_pictures_of_the_last_record_that_the_disk_never_got_are_left_out(tmp_path):
    path = tmp_path / "a.log"
    whole, torn = record(1), record(2)
    path.write_bytes(whole + torn[:-6] + bytes(6))
    writer = RecordWriter(path)
    assert [each.head["number"] for each in writer.records] == [1]
    assert path.read_bytes() == whole


def test_a_damaged_head_in_the_middle_is_skipped_and_said(tmp_path, caplog):
    path = tmp_path / "a.log"
    parts = [record(1), bytearray(record(2)), record(3)]
    parts[1][120] ^= 1
    path.write_bytes(b"".join(parts))
    assert numbers(path) == [1, 3]
    assert "damaged" in caplog.text


def test_a_damaged_picture_is_an_error_where_it_is_looked_at(tmp_path):
    path = tmp_path / "a.log"
    content = bytearray(record(1))
    content[-1] ^= 1
    path.write_bytes(content)
    (found,) = RecordFile(path).new_records()
    with pytest.raises(DamagedRecordError, match=r"a\.log"):
        found.pictures()


def test_a_deleted_file_is_read_as_long_as_somebody_holds_it(tmp_path):
    path = tmp_path / "a.log"
    RecordWriter(path).append(record(1))
    (found,) = RecordFile(path).new_records()
    path.unlink()
    assert found.pictures() == [b"one", b"two"]


def test_what_could_not_be_written_leaves_no_part(tmp_path, monkeypatch):
    path = tmp_path / "a.log"
    writer = RecordWriter(path)
    writer.append(record(1))

    def half(path, content):
        with path.open("ab") as file:
            file.write(content[:20])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("marc.memory.live.records.append_bytes", half)
        with pytest.raises(OSError, match="space"):
            writer.append(record(2))
    writer.append(record(3))
    assert numbers(path) == [1, 3]
