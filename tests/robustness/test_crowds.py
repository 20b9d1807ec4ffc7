"""The library against a dictionary, in one process by hypothesis and in two at the same time; and what is allowed."""

import tempfile
from pathlib import Path
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from marc.memory.library import MemoryLibrary
from robustness import crowds
from robustness.crowds import Action, Crowd, Done, Trial, act, allowed, contents, memory_of

NAMES = st.integers(0, 3)


class LibraryMachine(RuleBasedStateMachine):
    """A library and a dictionary that go through the same."""

    def __init__(self):
        super().__init__()
        self.parent = tempfile.TemporaryDirectory()
        self.model, self.version = {}, 0
        self.library = MemoryLibrary(Path(self.parent.name, "library"))
        self.put([0], 3)

    def path(self, number):
        path = Path(self.parent.name, f"{number}.mp4")
        path.touch()
        return str(path)

    @rule(numbers=st.lists(NAMES, min_size=1, max_size=3, unique=True), events=st.integers(1, 9))
    def put(self, numbers, events):
        writes = []
        for number in numbers:
            self.version += 1
            writes.append((self.path(number), (self.version, events)))
        act(self.library, Action("add", tuple(writes)))
        self.model.update(writes)

    @rule(number=NAMES)
    def forget(self, number):
        dropped = self.library.remove(self.path(number))
        assert dropped == (self.model.pop(self.path(number), None) or (0, 0))[1]

    @rule()
    def compact(self):
        self.library.optimize()

    @rule()
    def open_again(self):
        self.library = MemoryLibrary(self.library.address)

    @rule(number=NAMES)
    def look(self, number):
        path = self.path(number)
        version, events = self.model.get(path) or (1, 1)
        texts = [crowds._text(version)] * events
        assert self.library.holds(memory_of(path, version, events), texts) == (path in self.model)

    @invariant()
    def equals_the_model(self):
        assert contents(self.library) == self.model
        assert self.library.videos() == {path: events for path, (_, events) in sorted(self.model.items())}

    def teardown(self):
        self.parent.cleanup()


LibraryMachine.TestCase.settings = settings(max_examples=3, stateful_step_count=8, derandomize=True)
test_a_library_is_a_dictionary = LibraryMachine.TestCase


def done(start, end, version, problem=""):
    return Done(Action("add", (("a", version),)), start, end, problem)


@pytest.mark.parametrize(
    ("changes", "asked", "versions"),
    [
        ([], (0, 1), {(0, 1)}),
        ([done(1, 2, (1, 1))], (3, 4), {(1, 1)}),
        ([done(1, 5, (1, 1))], (3, 4), {(0, 1), (1, 1)}),
        ([done(5, 6, (1, 1))], (3, 4), {(0, 1)}),
        ([done(1, 2, (1, 1)), done(3, 4, (2, 1))], (5, 6), {(2, 1)}),
        ([done(1, 3, (1, 1)), done(2, 4, (2, 1))], (5, 6), {(1, 1), (2, 1)}),
        ([done(1, 2, (1, 1)), done(3, 4, None)], (5, 6), {None}),
        ([done(1, 2, (1, 1)), done(3, 4, (2, 1), "disk full")], (5, 6), {(1, 1), (2, 1)}),
        ([done(1, float("inf"), (1, 1), "killed")], (5, 6), {(0, 1), (1, 1)}),
    ],
)
def test_an_answer_may_show_what_some_order_of_the_changes_allows(changes, asked, versions):
    assert allowed("a", {"a": (0, 1)}, changes, *asked) == versions


def test_two_processes_agree_with_the_model(tmp_path, monkeypatch):
    monkeypatch.setattr(crowds, "ROUNDS", 1)
    monkeypatch.setattr(crowds, "CHANGES", 3)
    crowd = Crowd(2)
    try:
        trial = Trial(crowd, tmp_path, Random(3))
        trial.run("crowd")
    finally:
        crowd.leave()
    assert trial.problems == []
    assert trial.actions > 5


def test_a_library_that_differs_from_the_model_is_found(tmp_path):
    library = MemoryLibrary(tmp_path / "library")
    video = tmp_path / "a.mp4"
    video.touch()
    act(library, Action("add", ((str(video), (1, 4)),)))
    before = Done(Action("add", ((str(video), (2, 4)),)), 0, 1, "")
    asked = Done(Action("ask"), 2, 3, "", contents(library))
    (problem,) = crowds.problems_of([str(video)], {}, [before, asked])
    assert problem == "an answer shows of a.mp4 (1, 4) where {(2, 4)} would be right"
    library.add([memory_of(str(video), 1, 4)], [["other"] * 4])
    with pytest.raises(AssertionError, match=r"a\.mp4 has other texts"):
        contents(library)
