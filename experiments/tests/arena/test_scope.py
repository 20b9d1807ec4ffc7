"""A memory of the words that a tower says, and each way to look at a video for a question."""

from math import ceil, sqrt
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.arena.model import build_arena_model
from experiments.arena.retriever import TowerWords
from experiments.arena.scope import SCOPES, Asked, measure_scopes, places, scope_table, ways_of
from experiments.arena.settings import ArenaSettings
from experiments.tiny_model.train import save_model
from marc.inference.hf import HFBackend
from marc.memory.embedder import EventEmbedder
from marc.world.arena.scenes import sample_arena


def test_a_picture_is_what_the_tower_says_of_it_and_a_question_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tower that says of every cell what the question is about: both vectors point the same way."""
    backend = HFBackend(*build_arena_model(ArenaSettings(layers=3)))
    words = TowerWords(backend)
    asked = words.encode_texts(["teal striped"])[0]
    table, tokenizer = backend.model.model.language_model.embed_tokens.weight, backend.processor.tokenizer
    ids = tokenizer(" teal striped", add_special_tokens=False)["input_ids"]
    assert torch.equal(asked, table[ids].sum(0)) and words.token_count("teal striped") == 2
    assert not words.encode_texts(["What the does"]).any(), "no tower says that"

    def says(inputs: list) -> None:
        for each in inputs:
            each.features = asked.expand(each.tokens, -1) * torch.rand(each.tokens, 1)

    monkeypatch.setattr(backend, "encode", says)
    embedder = EventEmbedder(words, precision="fp32")
    pictures = embedder.embed_frames(np.zeros((3, 112, 224, 3), np.uint8))
    assert pictures.shape == (3, 128)
    np.testing.assert_allclose(pictures @ embedder.embed_question("teal striped").vector, 1.0, atol=1e-5)


def test_every_way_shows_its_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(*build_arena_model(ArenaSettings(layers=3)), tmp_path)
    seen: list[list[tuple[bool, int]]] = []

    def right(backend: object, style: str, shown: list, asked: list) -> list[bool]:
        seen.append([(each.shares is None, each.tokens) for each in shown])
        return [each.shares is None for each in shown]

    monkeypatch.setattr("experiments.arena.scope.answers_right", right)
    found = measure_scopes(tmp_path, "events", ways_of(SCOPES, ["1/32"]), videos=1, questions=12, seed=0)
    moments, all_of_it, auto = seen
    assert not any(even for even, _ in moments) and all(even for even, _ in all_of_it)
    assert [even for even, _ in auto] == [each.for_all for each in found]
    assert {each.for_all for each in found} == {True, False}
    assert len({tokens for _, tokens in moments + all_of_it + auto}) == 1, "one budget"


def test_a_budget_that_follows_from_the_events_is_asked_in_every_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(*build_arena_model(ArenaSettings(layers=3)), tmp_path)
    monkeypatch.setattr(
        "experiments.arena.scope.answers_right", lambda backend, style, shown, asked: [True] * len(shown)
    )
    found = measure_scopes(tmp_path, "details", ways_of(SCOPES, ["auto:16"]), videos=1, questions=12, seed=0)
    events = len(sample_arena("test", 0, 0).events)
    for each in found:
        own = 32 if each.kind.startswith("count") else 16
        whole = ceil(own * sqrt(events))
        part = 1.0 if each.for_all or events <= 3 else 0.5
        some = max(0, events - 3) + round(part * ceil(own * sqrt(min(3, events))))
        assert each.tokens["all"] == whole and each.tokens["moments"] == some
        assert each.tokens["auto"] == (whole if each.for_all else some)


def test_ways_have_the_names_of_what_differs() -> None:
    assert ways_of(SCOPES, ["1/32"]) == {scope: (scope, "1/32") for scope in SCOPES}
    assert ways_of(["auto"], ["auto:8", "1/10"]) == {"auto auto:8": ("auto", "auto:8"), "auto 1/10": ("auto", "1/10")}


def test_the_table_compares_the_ways() -> None:
    found = [
        Asked(video, kind, kind == "count", dict(zip(SCOPES, right, strict=True)), dict.fromkeys(SCOPES, 7))
        for video in (0, 1)
        for kind, right in (("count", (False, True, True)), ("sign", (True, False, True)))
    ]
    table = scope_table(found)
    assert "| all | 4 | 50 | 50.0 | 50.0 | 100.0 |" in table and "| sign | 2 | 0 | 100.0 | 0.0 | 100.0 |" in table
    assert "auto: 100.0 [100.0, 100.0] % from 7 visual tokens; +50.0 [+50.0, +50.0] to moments" in table


def test_a_moment_is_the_frame_that_is_shown_then() -> None:
    assert places(np.array([0.0, 0.49, 0.5, 1.0])).tolist() == [0, 0, 1, 2]
