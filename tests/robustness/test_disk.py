"""What a disk may hold after a kill and after a loss of power."""

from random import Random

import pytest

from robustness.disk import Disk, Step


def steps(root, *described):
    """Steps from ``(kind, path, offset or other path, data)``."""
    for kind, path, *rest in described:
        other, offset, data = "", 0, b""
        if kind in "RL":
            other = str(root / rest[0])
        elif kind in "WT":
            offset, data = (*rest, b"")[:2]
        yield Step(kind, str(root / path), other, offset, data)


def losses(root, *described):
    """All that may be there after a loss of power, with the root's path left out."""
    disk = Disk(root)
    for step in steps(root, *described):
        disk.apply(step)
    states = [disk.after_loss(Random(seed)) for seed in range(200)]
    return [{path[len(str(root)) + 1 :]: content for path, content in state.items()} for state in states]


def test_what_was_there_before_stays(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a").write_bytes(b"old")
    assert losses(tmp_path) == [{"deep": None, "deep/a": b"old"}] * 200


def test_file_and_folder_that_were_synchronised_stay(tmp_path):
    done = [("C", "a"), ("W", "a", 0, b"abc"), ("F", "a"), ("F", "")]
    assert losses(tmp_path, *done) == [{"a": b"abc"}] * 200


def test_a_file_whose_folder_was_not_synchronised_may_be_gone_and_else_is_whole(tmp_path):
    states = losses(tmp_path, ("C", "a"), ("W", "a", 0, b"abc"), ("F", "a"))
    assert {} in states and {"a": b"abc"} in states and len({str(state) for state in states}) == 2


def test_a_write_that_was_not_synchronised_may_be_there_in_part_or_as_zeros_or_not_at_all(tmp_path):
    states = losses(tmp_path, ("C", "a"), ("F", "a"), ("F", ""), ("W", "a", 0, b"abc"))
    contents = {state["a"] for state in states}
    assert {b"", b"abc", b"\0\0\0"} < contents <= {b"", b"a", b"ab", b"abc", b"\0\0\0"}


def test_a_later_write_may_be_there_without_an_earlier_one(tmp_path):
    states = losses(tmp_path, ("C", "a"), ("F", "a"), ("F", ""), ("W", "a", 0, b"ab"), ("W", "a", 2, b"cd"))
    assert b"\0\0cd" in {state["a"] for state in states}


def test_a_renaming_may_be_there_before_the_content(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    done = [("C", "new"), ("W", "new", 0, b"abc"), ("R", "new", "a")]
    contents = {state.get("a") for state in losses(tmp_path, *done)}
    assert {b"old", b"abc", b""} <= contents


def test_a_folder_that_was_lost_takes_what_is_in_it_along(tmp_path):
    done = [("M", "deep"), ("C", "deep/a"), ("W", "deep/a", 0, b"abc"), ("F", "deep/a"), ("F", "deep")]
    states = losses(tmp_path, *done)
    assert {} in states and all(set(state) in (set(), {"deep", "deep/a"}) for state in states)


@pytest.mark.parametrize(
    ("described", "there"),
    [
        ([("C", "a"), ("W", "a", 0, b"abc"), ("T", "a", 1)], {"a": b"a"}),
        ([("C", "a"), ("W", "a", 2, b"abc")], {"a": b"\0\0abc"}),
        ([("C", "a"), ("L", "a", "b"), ("W", "a", 0, b"x"), ("U", "a")], {"b": b"x"}),
        ([("M", "d"), ("C", "d/a"), ("R", "d", "e")], {"e": None, "e/a": b""}),
        ([("M", "d"), ("U", "d")], {}),
    ],
)
def test_after_a_kill_all_steps_are_there(tmp_path, described, there):
    disk = Disk(tmp_path)
    for step in steps(tmp_path, *described):
        disk.apply(step)
    assert {path[len(str(tmp_path)) + 1 :]: content for path, content in disk.after_kill().items()} == there


def test_a_renaming_that_passed_by_the_log_is_taken_when_its_file_is_met(tmp_path):
    done = [("C", ".tmpA1b2C3"), ("W", ".tmpA1b2C3", 0, b"abc"), ("F", "model"), ("F", "")]
    assert losses(tmp_path, *done) == [{"model": b"abc"}] * 200
    disk = Disk(tmp_path)
    for step in steps(tmp_path, *done[:2]):
        disk.apply(step)
    disk.settle([str(tmp_path / "model")])
    assert disk.after_kill() == {str(tmp_path / "model"): b"abc"}
