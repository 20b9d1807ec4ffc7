from __future__ import annotations

import av
import numpy as np
import pytest
from av.packet import Packet

from marc.video import groups as module
from marc.video.groups import can_come_back, changes_details, groups, lone_packet, may_hide, spikes, stays_calm

KEY = 50_000


def is_quiet(packets: np.ndarray, key: int) -> bool:
    found = spikes(packets, key)
    return found is not None and not len(found)


def sizes(count: int = 100, level: int = 1500, spread: float = 0.3) -> np.ndarray:
    return (level * np.random.default_rng(0).uniform(1 - spread, 1 + spread, count)).astype(np.int64)


def changed(at: int, size: int, count: int = 1) -> np.ndarray:
    packets = sizes()
    packets[at : at + count] = size
    return packets


@pytest.mark.parametrize(
    ("packets", "quiet"),
    [
        (sizes(), True),
        (sizes(level=60), True),
        (sizes(level=7_000), True),
        (sizes(count=5), False),
        (changed(50, 25_000), False),
        (changed(50, 8_000, count=2), False),
        (changed(0, 1_900), True),
        (changed(30, 40, count=30), False),
        (sizes(level=1500, spread=0.001), False),
        (sizes(level=40_000), False),
    ],
    ids=[
        "even",
        "tiny",
        "large",
        "too few",
        "a picture",
        "a spike",
        "a detail",
        "less than a detail",
        "padded",
        "noise",
    ],
)
def test_what_packets_rule_out(packets: np.ndarray, quiet: bool):
    assert is_quiet(packets, KEY) is quiet


def test_a_detail_that_changes_is_told_from_nothing_at_all():
    assert not changes_details(sizes(), KEY)
    packets = sizes(level=300)
    packets[50] = 5_000
    assert is_quiet(packets, KEY)
    assert changes_details(packets, KEY)
    assert not changes_details(np.roll(packets, -49), KEY), "it refines the key picture"


def test_something_plain_for_a_while_lowers_the_level():
    packets = sizes(level=7_000)
    assert is_quiet(packets, KEY)
    packets[30:60] = 100
    assert not is_quiet(packets, KEY)


def test_patterns_of_an_encoder_are_no_spikes():
    pattern = np.array([9_000, 40, 40, 700, 40, 40, 2_500, 40] * 20)
    assert is_quiet(pattern, KEY)


def packet(size: int, pts: int | None, *, key: bool = False) -> Packet:
    made = Packet(bytes(size))
    made.pts, made.is_keyframe = pts, key
    return made


def test_packets_are_grouped_by_key_packets_whatever_their_order_of_being_shown():
    read = [packet(9, 0, key=True), packet(2, 2), packet(1, 1), packet(9, 5, key=True), packet(1, 4), packet(1, 6)]
    first, second = groups(read)
    assert [each.is_whole for each in (first, second)] == [True, True]
    assert (first.start, second.start) == (0, 5)
    assert [each.pts for each in second.leading()] == [4]
    assert [each.pts for each in second.following()] == [6]
    (before, after) = groups([packet(1, 3), packet(9, 4, key=True)])
    assert (before.is_whole, after.is_whole) == (False, True)
    (untimed,) = groups([packet(9, 4, key=True), packet(1, None)])
    assert not untimed.is_whole


def test_a_group_that_is_too_long_comes_in_parts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MOST_BYTES", 20)
    parts = list(groups([packet(9, 0, key=True), *(packet(9, number) for number in range(1, 8))]))
    assert [len(part.packets) for part in parts] == [3, 3, 2]
    assert not any(part.is_whole for part in parts)


def test_what_was_read_before_a_fault_is_given():
    def broken():
        yield packet(9, 0, key=True)
        raise av.InvalidDataError(1, "made")

    read = groups(broken())
    assert len(next(read).packets) == 1
    with pytest.raises(av.InvalidDataError):
        next(read)


@pytest.mark.parametrize(
    ("packets", "place"),
    [
        (changed(50, 50_000) // 2, 50),
        (changed(50, 24_000) // 2, None),
        (changed(50, 50_000, count=2) // 2, None),
        (np.concatenate([changed(50, 50_000) // 2, [9_000]]), None),
        (changed(50, 25_000), None),
        (sizes(), None),
        (sizes(count=3), None),
    ],
    ids=["a new picture", "a small one", "two", "another large one", "much going on", "none", "too few"],
)
def test_one_packet_that_must_hold_a_new_picture_is_told_from_several(packets: np.ndarray, place: int | None):
    assert lone_packet(packets, KEY) == place


@pytest.mark.parametrize(
    ("later", "calm"),
    [(sizes(), True), (sizes(level=2_500), False), (changed(60, 4_000, count=12), False), (sizes(count=0), True)],
)
def test_packets_tell_that_something_begins_to_move(later: np.ndarray, calm: bool):
    assert stays_calm(sizes(), later, KEY) == calm
    assert stays_calm(np.full(20, 20), np.full(40, 200), KEY), "a trifle of a key picture"
    assert not stays_calm(sizes(count=0), later, KEY), "nothing is known"
    assert stays_calm(changed(3, 20_000), later, KEY) == calm, "what is brief before it hides nothing"


@pytest.mark.parametrize(("size", "back"), [(10_000, False), (14_000, True), (1_500, False), (3_500, True)])
def test_what_comes_back_costs_a_new_picture(size: int, back: bool):
    """In one packet or in eight, of which the others have 200 bytes."""
    packets = np.full(100, 200)
    packets[50 : 51 if size > 5_000 else 58] = size
    assert can_come_back(packets, KEY) == back


def test_packets_of_vp9_tell_whether_they_hide_pictures():
    plain, several = Packet(b"\x82\x49\x83\x00"), Packet(b"\x82\x49\x83\x00\xc9\x04\x00\xc9")
    assert not may_hide([plain, plain], "vp9")
    assert may_hide([plain, several], "vp9")
    assert may_hide([plain], "av1")
    assert not may_hide([several], "h264")
