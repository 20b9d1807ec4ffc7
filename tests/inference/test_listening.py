"""Each row of a generation is heard by its own listener, and ends when that one leaves."""

import pytest
import torch
from tiny_prompts import QUESTIONS, prompt, shown

from marc.inference.hf import HFBackend
from marc.inference.listening import Listener, ListeningRows
from marc.types import GenerationOptions


class Letters:
    """A tokenizer of which every token is a word."""

    def decode(self, ids, **_):
        return "".join(f"{chr(97 + int(token))} " for token in ids)


def hear(columns, listeners, ends=frozenset()):
    rows = ListeningRows(Letters(), listeners, ends)
    rows.put(torch.tensor([[7, 7]] * len(listeners)))
    for column in columns:
        rows.put(torch.tensor(column))
    rows.end()
    return rows


def test_a_prompt_is_not_told_and_nothing_behind_the_end():
    pieces = [[], []]
    hear([[1, 2], [0, 3], [9, 4]], [Listener(each.append) for each in pieces], ends=frozenset({0}))
    assert ["".join(each) for each in pieces] == ["b a ", "c d e "]


def test_rows_that_are_left_end_whatever_their_order():
    listeners = [Listener(), Listener(lambda piece: False), Listener(lambda piece: None)]
    rows = hear([[1, 2, 3]], listeners)
    assert not listeners[0].hears and listeners[1].hears
    assert rows.stop(torch.zeros(3, 1), None).tolist() == [False, True, False]
    assert rows.stop(torch.zeros(2, 1), None, rows=torch.tensor([2, 1])).tolist() == [False, True]
    assert rows.in_order([1, 2, 0]).stop(torch.zeros(3, 1), None).tolist() == [True, False, False]
    listeners[0].is_left = True
    assert rows.stop(torch.zeros(3, 1), None).tolist() == [True, True, False]


@pytest.mark.parametrize("static", [False, True])
def test_pieces_are_those_of_the_output_and_who_leaves_changes_no_other(tiny, static):
    backend = HFBackend(*tiny(layout="events"))
    videos = [shown(backend.processor, seed, events=(0, 0, 1, 2)) for seed in (1, 2)]
    backend.encode(videos)
    asked = [prompt(backend.processor, text, [video]) for text, video in zip(QUESTIONS * 2, videos * 3, strict=True)]
    options = GenerationOptions(max_new_tokens=12, static=static)
    expected = backend.generate(asked, options)
    texts = [backend.processor.decode(output, skip_special_tokens=True) for output in expected]

    pieces = [[] for _ in asked]
    listeners = [Listener(each.append) for each in pieces]
    listeners[1] = Listener()
    listeners[4] = Listener(lambda piece: len(pieces[4].append(piece) or pieces[4]) < 3)
    outputs = backend.generate(asked, options, listeners=listeners)
    others = [row for row in range(len(asked)) if row != 4]
    assert [outputs[row] for row in others] == [expected[row] for row in others]
    assert [("".join(pieces[row]), row) for row in others if row != 1] == [
        (texts[row], row) for row in others if row != 1
    ]
    assert not pieces[1]
    assert listeners[4].is_left and outputs[4][:3] == expected[4][:3]
    assert texts[4].startswith("".join(pieces[4]).strip())
