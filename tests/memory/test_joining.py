"""Passes that several threads share: who is joined with whom, and that everybody gets what is theirs."""

import threading
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marc.memory.joining import JoinedPasses

BAD = 255


class HeldRunner(Executor):
    """Runs nothing until it is told to: all that have asked by then wait at the same time."""

    def __init__(self):
        self.submitted, self._arrived = [], threading.Semaphore(0)

    def submit(self, function, /, *args, **kwargs):
        self.submitted.append(function)
        self._arrived.release()
        return Future()

    def wait_for_one_more(self):
        assert self._arrived.acquire(timeout=30)

    def run(self):
        for function in self.submitted:
            function()


class MeanOfPictures:
    """Embeds arrays of one shape by a matrix product, as a network does; 255 in one of them is an error."""

    def __init__(self):
        self.passes, self.threads = [], set()
        self._matrix = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)

    def __call__(self, items):
        self.passes.append(len(items))
        self.threads.add(threading.get_ident())
        stacked = np.stack(items).reshape(len(items), -1)
        if (stacked == BAD).any():
            raise ValueError(f"a bad one among {len(items)}")
        return stacked[:, :4].astype(np.float32) @ self._matrix


def asked_together(passes, runner, requests):
    """What requests, items and kind, get that wait at the same time, in their order: vectors or an error."""
    with ThreadPoolExecutor(max(1, len(requests))) as askers:
        answers = []
        for items, kind in requests:
            answers.append(askers.submit(passes.vectors, items, kind))
            runner.wait_for_one_more()
        runner.run()
        return [answer.exception(timeout=30) or answer.result() for answer in answers]


@contextmanager
def held(most):
    model, runner = MeanOfPictures(), HeldRunner()
    yield model, runner, JoinedPasses(model, most, runner)


def pictures(count, side=2, value=1):
    return [np.full((side, side), value + index, np.uint8) for index in range(count)]


@pytest.mark.parametrize(
    ("asked", "passes"),
    [
        ([(3, 2), (3, 2), (3, 2), (2, 2)], [8, 3]),  # the third has no room, the fourth has
        ([(2, 2), (2, 3), (1, 2), (1, 3)], [3, 3]),  # of one size
        ([(2, 2), (2, None), (1, 2), (2, None)], [3, 2, 2]),  # those that want to be by themselves
        ([(9, 2), (1, 2), (1, 2)], [9, 2]),  # more than a pass
        ([(4, 2), (4, 2)], [8]),
    ],
)
def test_those_that_wait_longest_go_first_with_all_that_fit_in(asked, passes):
    with held(most=8) as (model, runner, joined):
        requests = [(pictures(count, side or 2), side) for count, side in asked]
        asked_together(joined, runner, requests)
    assert model.passes == passes


REQUESTS = st.tuples(st.integers(1, 5), st.sampled_from([2, 4, None]), st.integers(0, 200), st.booleans())


@settings(deadline=None, max_examples=40)
@given(st.lists(REQUESTS, max_size=8), st.integers(1, 12))
def test_everybody_gets_their_own_vectors_or_their_own_error(asked, most):
    requests = [(pictures(count, side or 2, value), side) for count, side, value, _ in asked]
    bad = [is_bad for *_, is_bad in asked]
    for (items, _), is_bad in zip(requests, bad, strict=True):
        items[-1].fill(BAD if is_bad else items[-1].max())
    with held(most) as (model, runner, joined):
        answers = asked_together(joined, runner, requests)
    assert all(size <= most or size in [len(items) for items, _ in requests] for size in model.passes)
    for (items, _), is_bad, answer in zip(requests, bad, answers, strict=True):
        if is_bad:
            assert str(answer) == f"a bad one among {len(items)}"
        else:
            alone = np.concatenate([MeanOfPictures()([item]) for item in items])
            np.testing.assert_allclose(answer, alone, rtol=1e-6, atol=1e-6 * np.abs(alone).max())


def test_what_comes_while_a_pass_runs_goes_into_the_next_in_one_thread():
    model, begun, gate = MeanOfPictures(), threading.Semaphore(0), threading.Event()

    def slowly(items):
        begun.release()
        assert gate.wait(30)
        return model(items)

    with ThreadPoolExecutor(1) as runner, ThreadPoolExecutor(4) as askers:
        joined = JoinedPasses(slowly, 8, runner)
        answers = [askers.submit(joined.vectors, pictures(1), "alike")]
        assert begun.acquire(timeout=30)
        answers += [askers.submit(joined.vectors, pictures(2, value=value), "alike") for value in (5, 6, 7)]
        while len(joined._waiting) < 3:
            threading.Event().wait(0.001)
        gate.set()
        found = [answer.result(30) for answer in answers]
    assert model.passes == [1, 6] and len(model.threads) == 1
    for own, value in zip(found[1:], (5, 6, 7), strict=True):
        np.testing.assert_allclose(own, MeanOfPictures()(pictures(2, value=value)), rtol=1e-6)


def test_many_threads_get_what_each_has_brought():
    model = MeanOfPictures()
    with ThreadPoolExecutor(1) as runner, ThreadPoolExecutor(16) as askers:
        joined = JoinedPasses(model, 6, runner)
        brought = [(pictures(1 + index % 3, 2 + index % 2, index % 200), 2 + index % 2) for index in range(300)]
        found = list(askers.map(lambda each: joined.vectors(*each), brought))
    for (items, _), own in zip(brought, found, strict=True):
        np.testing.assert_allclose(own, MeanOfPictures()(items), rtol=1e-6)
    assert sum(model.passes) == sum(len(items) for items, _ in brought) and max(model.passes) <= 6


def test_a_model_that_gives_too_few_vectors_gives_nobody_anothers():
    with held(most=8) as (model, runner, joined):
        joined._embed = lambda items: model(items)[:-1]
        first, second = asked_together(joined, runner, [(pictures(2), "alike"), (pictures(3), "alike")])
    assert (str(first), str(second)) == ("1 vectors of 2 items", "2 vectors of 3 items")
