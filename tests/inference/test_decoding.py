"""Prompts that begin alike are decoded behind what they share: as transformers' own loop decodes each by itself."""

import copy
from collections.abc import Callable, Sequence
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from scipy.stats import chisquare
from tiny_inputs import PIXELS
from tiny_models import each_with, of
from tiny_prompts import QUESTIONS, prompt, shown
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import DynamicCache, LogitsProcessor, LogitsProcessorList

from marc.inference.decoding import (
    SPARE,
    TOGETHER,
    RowsBehindPrefixes,
    decoding_attention,
    drawn_apart,
    drawn_as_transformers_does,
    drawn_by_one_number,
)
from marc.inference.encoding import encode_once
from marc.inference.hf import complete
from marc.inference.prompts import Prompt
from marc.model.attention import why_not_shared
from marc.model.tiny import build_config, build_tiny

WHAT, LONG, MANY = QUESTIONS
SAMPLED = {"do_sample": True, "temperature": 0.8, "top_k": 50, "max_new_tokens": 12}


class Recorder(LogitsProcessor):
    """Remembers what every token of a generation is chosen from, by the tokens before it."""

    def __init__(self) -> None:
        self.scores: dict[tuple[int, ...], Tensor] = {}
        self.rows: list[int] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.rows.append(len(input_ids))
        self.scores.update(zip(map(tuple, input_ids.tolist()), scores.clone(), strict=True))
        return scores


def answers(model, prompts: Sequence[Prompt], *, share: bool, **generation) -> tuple[list[list[int]], Recorder]:
    recorder = Recorder()
    torch.manual_seed(0)
    generation = {"max_new_tokens": 8, "do_sample": False, **generation}
    processors = LogitsProcessorList([recorder])
    return complete(model, prompts, share=share, logits_processor=processors, **generation), recorder


def assert_alike(model, prompts: Sequence[Prompt], tolerance: float = 1e-5, **generation) -> Recorder:
    """The same answers, from the same scores at every token."""
    with mock.patch("marc.inference.hf.decode_rows", side_effect=AssertionError("shared")):
        expected, alone = answers(model, prompts, share=False, **generation)
    with mock.patch("marc.inference.hf._complete_alone", side_effect=AssertionError("not shared")):
        outputs, shared = answers(model, prompts, share=True, **generation)
    assert outputs == expected
    for row, scores in shared.scores.items():
        torch.testing.assert_close(scores, alone.scores[row], rtol=tolerance, atol=tolerance)
    return shared


def ask(processor, *asked: tuple[str, Sequence]) -> list[Prompt]:
    """Prompts that name what they are about, so that different ones are never of the same tokens."""
    return [
        prompt(processor, " ".join((question, *(each.patches.source for each in inputs))), inputs)
        for question, inputs in asked
    ]


def about(model, processor) -> Callable[..., list]:
    """Encoded videos and pictures by number, each the same whenever it is asked for."""
    known = {}

    def some(*names: str) -> list:
        for name in names:
            if name not in known:
                kind = "image" if name.startswith("picture") else "video"
                known[name] = shown(processor, len(known), kind=kind, frames=4 + 2 * len(known))
                encode_once(model, [known[name]])
        return [known[name] for name in names]

    return some


CASES = {
    "equal prompts": lambda v: [(WHAT, v("a"))] * 4,
    "questions about a video": lambda v: [(WHAT, v("a")), (LONG, v("a")), (MANY, v("a"))],
    "several videos mixed": lambda v: [
        (WHAT, v("a")),
        (WHAT, v("b")),
        (LONG, v("a")),
        (MANY, v("b")),
        (WHAT, v("c")),
        (WHAT, v("a")),
    ],
    "equal prompts of several videos": lambda v: [(WHAT, v("a")), (LONG, v("b"))] * 3,
    "a picture": lambda v: [(WHAT, v("picture")), (LONG, v("picture")), (WHAT, v("picture"))],
    "two videos and a picture in a prompt": lambda v: [(each, v("a", "picture", "b")) for each in QUESTIONS],
    "texts alone": lambda v: [(WHAT, []), (LONG, []), (WHAT, []), (LONG, [])],
    "texts beside videos and pictures": lambda v: [
        (LONG, []),
        (WHAT, v("a")),
        (LONG, []),
        (WHAT, v("picture")),
        (WHAT, v("a")),
        (MANY, v("picture")),
    ],
    "prompts of very different lengths": lambda v: [(WHAT, v("a")), (20 * LONG, v("a")), (10 * MANY, v("b"))] * 2,
}


@each_with("compression", {}, {"layout": "frames"}, {"target_frames": None})
@pytest.mark.parametrize("case", CASES)
def test_answers_are_those_of_transformers_own_loop(case, compression, tiny):
    """Also where nothing is shared, because recurrent layers need equal prompts for that."""
    model, processor = tiny(**compression)
    asked = ask(processor, *CASES[case](about(model, processor)))
    if why_not_shared(model.model.language_model) and len(set(asked)) == len(asked):
        alone, shared = (answers(model, asked, share=share)[0] for share in (False, True))
        assert shared == alone
    else:
        assert_alike(model, asked)


def test_adapters_that_are_not_merged_take_part(tiny):
    model, processor = tiny()
    config = LoraConfig(r=4, target_modules=model.family.language_linears, init_lora_weights=False)
    asked = ask(processor, *CASES["several videos mixed"](about(model, processor)))
    plain = answers(model, asked, share=True)[0]
    base = get_peft_model(model, config).get_base_model()
    assert_alike(base, asked)
    assert answers(base, asked, share=True)[0] != plain


def test_weights_in_bfloat16(tiny):
    """Sums are rounded apart: of every token the scores agree, as long as the same ones were chosen before."""
    model, processor = tiny()
    model.to(torch.bfloat16)
    asked = ask(processor, *CASES["several videos mixed"](about(model, processor)))
    (_, alone), (_, shared) = (answers(model, asked, share=share) for share in (False, True))
    known = [row for row in shared.scores if row in alone.scores]
    assert len(known) > len(shared.scores) / 2
    for row in known:
        torch.testing.assert_close(shared.scores[row], alone.scores[row], rtol=0.05, atol=0.05)


NEVER = 10**6
"""A token that is not in the vocabulary."""


def ending_with(model, *tokens: int):
    config = copy.deepcopy(model.generation_config)
    config.eos_token_id = list(tokens)
    return {"generation_config": config, "max_new_tokens": 12}


@each_with("place", 1, 0, 5)
@pytest.mark.parametrize("case", ["equal prompts", "several videos mixed"])
def test_rows_that_end_before_the_others_leave(case, place, tiny):
    model, processor = tiny()
    asked = ask(processor, *CASES[case](about(model, processor)))
    outputs, _ = answers(model, asked, share=True, **{**ending_with(model, NEVER), **SAMPLED})
    assert {len(output) for output in outputs} == {12}
    for ends in {output[place] for output in outputs[:3]}:
        recorder = assert_alike(model, asked, **{**ending_with(model, ends), **SAMPLED})
        ended, _ = answers(model, asked, share=True, **{**ending_with(model, ends), **SAMPLED})
        lengths = [output.index(ends) + 1 if ends in output else 12 for output in outputs]
        assert ended == [output[:length] for output, length in zip(outputs, lengths, strict=True)]
        assert recorder.rows[0] == len(asked) and len(recorder.rows) == max(lengths)
        at_work = [sum(length >= step for length in lengths) for step in range(1, 13)]
        assert all(rows * SPARE < left or rows == left for rows, left in zip(recorder.rows, at_work, strict=False))


def test_when_all_rows_end_nothing_more_is_read(tiny):
    model, processor = tiny()
    asked = ask(processor, *CASES["equal prompts"](about(model, processor)))
    (first, *_), *_ = answers(model, asked, share=True)[0]
    recorder = assert_alike(model, asked, **ending_with(model, first))
    assert recorder.rows == [4]
    assert answers(model, asked, share=True, **ending_with(model, first))[0] == [[first]] * 4


def test_eight_answers_read_their_prompt_once(tiny):
    model, processor = tiny()
    (asked,) = ask(processor, (LONG, about(model, processor)("a")))
    text = model.model.language_model
    with mock.patch.object(text, "forward", wraps=text.forward) as run:
        complete(model, [asked] * 8, max_new_tokens=3, do_sample=False)
    read = [tuple(call.kwargs["inputs_embeds"].shape[:2]) for call in run.call_args_list]
    assert read == [(1, len(asked.expanded(model)) - 1), (8, 1), (8, 1), (8, 1)]


def test_rows_that_share_nothing_leave_when_they_end(tiny):
    """Transformers' loop would go on with all of them until the last one has ended."""
    model, processor = tiny()
    asked = ask(processor, (WHAT, about(model, processor)("a")), (LONG, []), (WHAT, about(model, processor)("b")))
    outputs, _ = answers(model, asked, share=True, **{**ending_with(model, NEVER), **SAMPLED})
    ended = next(token for output in outputs for token in output if sum(token in other for other in outputs) < 3)
    recorder = assert_alike(model, asked, **{**ending_with(model, ended), **SAMPLED})
    assert min(recorder.rows) < 3


def test_one_prompt_and_prompts_of_one_token_go_transformers_way(tiny, monkeypatch):
    model, processor = tiny()
    monkeypatch.setattr("marc.inference.hf.decode_rows", lambda *_, **__: pytest.fail("shared"))
    complete(model, ask(processor, (WHAT, about(model, processor)("a"))), max_new_tokens=2)
    complete(model, [Prompt((7,))] * 3, max_new_tokens=2)


@pytest.fixture(scope="module")
def sliding():
    """A model two of whose layers see eight tokens back only."""
    model, processor = build_tiny(max_pixels=PIXELS)
    config = build_config(processor.tokenizer)
    config.text_config.layer_types = ["sliding_attention", "full_attention", "sliding_attention"]
    config.text_config.sliding_window, config.text_config.use_sliding_window = 8, True
    narrow = type(model)(config).eval()
    narrow.load_state_dict(model.state_dict())
    narrow.generation_config = model.generation_config
    return narrow, processor


@pytest.mark.parametrize("place", [None, 0, 1, 5])
@pytest.mark.parametrize("case", ["equal prompts", "several videos mixed", "texts beside videos and pictures"])
def test_rows_have_copies_where_layers_keep_more_than_keys_and_values(case, place, sliding):
    model, processor = sliding
    asked = ask(processor, *CASES[case](about(model, processor)))
    options = {**ending_with(model, NEVER), **SAMPLED}
    outputs, _ = answers(model, asked, share=True, **options)
    if place is None:
        assert outputs == answers(model, asked, share=False, **options)[0]
        return
    options = {**ending_with(model, outputs[0][place]), **SAMPLED}
    assert_alike(model, asked, **options)


@pytest.mark.parametrize("case", ["equal prompts", "several videos mixed", "texts beside videos and pictures"])
def test_samples_of_a_seed_are_those_of_transformers_own_loop(case, tiny):
    """Also where rows are read in another order, and where some end before the others."""
    model, processor = tiny()
    asked = ask(processor, *CASES[case](about(model, processor)))
    often = torch.tensor([token for output in complete(model, asked, do_sample=False) for token in output]).mode()[0]
    options = {**ending_with(model, int(often)), **SAMPLED}
    expected, got = (answers(model, asked, share=share, **options)[0] for share in (False, True))
    assert got == expected
    assert len(set(map(tuple, got))) > 1


@of("qwen2_5_vl")
@pytest.mark.parametrize("draw", [None, drawn_by_one_number(2000)])
def test_samples_follow_the_distribution_that_transformers_warps(draw, tiny):
    """The first token of many samples, after temperature and top-k."""
    model, processor = tiny()
    (asked,) = ask(processor, (WHAT, about(model, processor)("a")))
    recorder = Recorder()
    torch.manual_seed(0)
    options = {**SAMPLED, "temperature": 0.5, "top_k": 6, "max_new_tokens": 1, "draw": draw}
    outputs = complete(model, [asked] * 2000, logits_processor=LogitsProcessorList([recorder]), **options)
    (logits,) = recorder.scores.values()
    best, words = (logits / 0.5).topk(6)
    drawn = torch.tensor(outputs)[:, 0]
    counts = [int((drawn == word).sum()) for word in words]
    assert sum(counts) == 2000
    assert chisquare(counts, (2000 * best.double().softmax(-1)).tolist(), sum_check=False).pvalue > 0.001


def test_drawing_apart_a_prompt_does_not_depend_on_the_others(tiny):
    model, processor = tiny()
    videos = about(model, processor)
    asked = ask(processor, (WHAT, videos("a")), (LONG, videos("b")), (WHAT, []))

    def samples(*numbers: int) -> list[list[int]]:
        draws = [drawn_as_transformers_does(3, torch.Generator().manual_seed(number)) for number in numbers]
        apart = drawn_apart([(3, draw) for draw in draws])
        return complete(model, [asked[number] for number in numbers for _ in range(3)], draw=apart, **SAMPLED)

    alone = [samples(number) for number in range(3)]
    assert samples(0, 1, 2) == [*alone[0], *alone[1], *alone[2]]
    assert samples(2, 0) == [*alone[2], *alone[0]]
    single = [drawn_as_transformers_does(1, torch.Generator().manual_seed(0)) for _ in range(2)]
    one, other = (complete(model, asked[:1], draw=draw, **SAMPLED) for draw in single)
    assert one == other


@pytest.mark.parametrize("draws", [drawn_as_transformers_does, drawn_by_one_number])
def test_tokens_are_drawn_in_proportion(draws):
    torch.manual_seed(0)
    weights = torch.tensor([0.0, 5.0, 1.0, 0.0, 4.0, 10.0, 0.0])
    scores = weights.log().expand(20_000, -1)
    drawn = draws(20_000)(scores, torch.arange(20_000))
    counts = torch.bincount(drawn, minlength=len(weights))
    assert counts[weights == 0].sum() == 0
    seen = weights > 0
    assert chisquare(counts[seen], 1000 * weights[seen].double()).pvalue > 0.001


@pytest.mark.parametrize("draws", [drawn_as_transformers_does, drawn_by_one_number])
def test_what_a_row_gets_does_not_depend_on_which_others_are_left(draws):
    scores, left = torch.randn(50, 40), torch.tensor([3, 17, 49])
    torch.manual_seed(0)
    whole = draws(50)(scores, torch.arange(50))
    torch.manual_seed(0)
    assert torch.equal(draws(50)(scores[left], left), whole[left])


def test_drawing_is_what_transformers_samples_with():
    scores = torch.randn(50, 40)
    torch.manual_seed(0)
    expected = torch.multinomial(scores.softmax(-1), 1).squeeze(1)
    torch.manual_seed(0)
    assert torch.equal(drawn_as_transformers_does(50)(scores, torch.arange(50)), expected)


def rows_behind(lengths: Sequence[int], owners: Sequence[int], room: int, *, heads: int = 2, width: int = 4):
    """Rows behind made-up prefixes, and keys and values of each prefix without padding."""
    cache = DynamicCache()
    shape = (len(lengths), heads, max(lengths), width)
    keys, values = torch.randn(shape), torch.randn(shape)
    cache.update(keys, values, 0)
    prefixes = [(keys[index, :, :length], values[index, :, :length]) for index, length in enumerate(lengths)]
    return RowsBehindPrefixes(cache, lengths, owners, room), prefixes


LENGTHS = st.sampled_from([(2, 1, 3, 2), (9, 1, 12, 4)])
"""Of prefixes that are no longer than what rows may add, which are copied for a few rows each, and of longer ones."""
ROOM = 6
ascending = st.lists(st.integers(0, 3), min_size=1, max_size=9).map(sorted)


@settings(max_examples=60)
@given(LENGTHS, ascending, st.data())
def test_rows_stand_beside_their_prefix(lengths, owners, data):
    rows, _ = rows_behind(lengths, owners, ROOM)
    kept = torch.tensor(data.draw(st.lists(st.booleans(), min_size=len(owners), max_size=len(owners)).filter(any)))
    states = torch.randn(len(owners), 5)
    assert torch.equal(rows.apart(rows.side_by_side(states)), states)
    rows.add()
    rows.keep(kept)
    grouped = rows.side_by_side(states[kept])
    assert torch.equal(rows.apart(grouped), states[kept])
    if max(lengths) <= ROOM:
        assert grouped.shape[1] <= TOGETHER
        return
    left = torch.tensor(owners)[kept]
    assert len(grouped) == len(left.unique()), "a prefix without rows leaves"
    for place, prefix in enumerate(left.unique()):
        own = states[kept][left == prefix]
        assert torch.equal(grouped[place, : len(own)], own)


@settings(max_examples=60)
@given(
    st.integers(0, 10**6),
    st.sampled_from([(4, 4), (4, 2), (6, 1), (6, 3)]),
    LENGTHS,
    ascending,
    st.lists(st.integers(1, 3), min_size=9, max_size=9),
    st.data(),
)
def test_attention_is_that_of_each_row_by_itself(seed, heads, lengths, owners, counts, data):
    """Queries and keys of every number of heads; rows begin with unlike numbers of tokens, and some leave."""
    torch.manual_seed(seed)
    (queries, groups), counts = heads, counts[: len(owners)]
    rows, prefixes = rows_behind(lengths, owners, ROOM, heads=groups)
    known = [prefixes[owner] for owner in owners]
    module, first = torch.nn.Module(), max(counts)
    module.layer_idx = 0
    present = torch.tensor([[0] * (first - count) + [1] * count for count in counts]).bool()
    for _ in range(4):
        new = present.shape[1]
        query, key, value = (torch.randn(len(known), number, new, 4) for number in (queries, groups, groups))
        rows.add(present if new > 1 else None)
        mixed, _ = decoding_attention(module, query, key, value, None, rows=rows, scaling=0.5)
        for row, seen in enumerate(present):
            fresh = (key[row][:, seen], value[row][:, seen])
            known[row] = tuple(torch.cat(pair, dim=1) for pair in zip(known[row], fresh, strict=True))
            total, asked = known[row][0].shape[1], query[row][:, seen]
            causal = torch.ones(asked.shape[1], total, dtype=torch.bool).tril(total - asked.shape[1])
            expected = scaled_dot_product_attention(asked, *known[row], causal, scale=0.5, enable_gqa=True)
            torch.testing.assert_close(mixed[row, seen], expected.transpose(0, 1), rtol=1e-4, atol=1e-5)
        kept = data.draw(st.lists(st.booleans(), min_size=len(known), max_size=len(known)).filter(any))
        rows.keep(torch.tensor(kept))
        known = [row for row, stays in zip(known, kept, strict=True) if stays]
        present = torch.ones(len(known), 1, dtype=torch.bool)
