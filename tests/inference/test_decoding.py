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
from tiny_prompts import QUESTIONS, prompt, shown
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import DynamicCache, LogitsProcessor, LogitsProcessorList

from marc.inference.decoding import RowsBehindPrefixes, _joined, _summed, decoding_attention, draw_tokens
from marc.inference.encoding import encode_once
from marc.inference.hf import complete
from marc.inference.prompts import Prompt

WHAT, LONG, MANY = QUESTIONS


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
    return [prompt(processor, question, inputs) for question, inputs in asked]


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


@pytest.mark.parametrize("compression", [{}, {"layout": "frames"}, {"target_frames": None}])
@pytest.mark.parametrize("case", CASES)
def test_answers_are_those_of_transformers_own_loop(case, compression, tiny):
    model, processor = tiny(**compression)
    assert_alike(model, ask(processor, *CASES[case](about(model, processor))))


def test_adapters_that_are_not_merged_take_part(tiny):
    model, processor = tiny()
    config = LoraConfig(r=4, target_modules=r".*language_model.*proj", init_lora_weights=False)
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


def ending_with(model, *tokens: int):
    config = copy.deepcopy(model.generation_config)
    config.eos_token_id = list(tokens)
    return {"generation_config": config, "max_new_tokens": 12}


@pytest.mark.parametrize("place", [0, 1, 3])
def test_rows_that_end_before_the_others_leave(place, tiny):
    model, processor = tiny()
    asked = ask(processor, *CASES["several videos mixed"](about(model, processor)))
    outputs, _ = answers(model, asked, share=True, max_new_tokens=12)
    later = {token for output in outputs[1:] for token in output[: place + 2]}
    ends = next((token for token in outputs[0][place:] if token not in later), outputs[0][place])
    recorder = assert_alike(model, asked, **ending_with(model, ends))
    ended, _ = answers(model, asked, share=True, **ending_with(model, ends))
    assert [row[-1] == ends or len(row) == 12 for row in ended] == [True] * len(asked)
    assert any(len(row) < 12 for row in ended)
    assert recorder.rows[0] == len(asked) > recorder.rows[-1] or recorder.rows == [len(asked)] * 12


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


def test_what_shares_nothing_goes_transformers_way(tiny):
    model, processor = tiny()
    different = ask(processor, (WHAT, about(model, processor)("a")), (LONG, []))
    with mock.patch("marc.inference.hf.decode_rows", side_effect=AssertionError("shared")):
        complete(model, different, max_new_tokens=2)
        complete(model, [Prompt((7,))] * 3, max_new_tokens=2)
        with mock.patch.object(type(model.model.language_model), "has_sliding_layers", True, create=True):
            model.model.language_model.has_sliding_layers = True
            complete(model, different[:1] * 2, max_new_tokens=2)


def test_samples_follow_the_distribution_that_transformers_warps(tiny):
    """The first token of many samples, after temperature and top-k."""
    model, processor = tiny()
    (asked,) = ask(processor, (WHAT, about(model, processor)("a")))
    options = {"do_sample": True, "temperature": 0.5, "top_k": 6, "max_new_tokens": 1}
    recorder = Recorder()
    torch.manual_seed(0)
    outputs = complete(model, [asked] * 2000, logits_processor=LogitsProcessorList([recorder]), **options)
    (logits,) = recorder.scores.values()
    best, words = (logits / 0.5).topk(6)
    drawn = torch.tensor(outputs)[:, 0]
    counts = [int((drawn == word).sum()) for word in words]
    assert sum(counts) == 2000
    assert chisquare(counts, (2000 * best.double().softmax(-1)).tolist(), sum_check=False).pvalue > 0.001


def test_tokens_are_drawn_in_proportion():
    weights = torch.tensor([0.0, 5.0, 1.0, 0.0, 4.0, 10.0, 0.0])
    torch.manual_seed(0)
    drawn = draw_tokens(weights.log().expand(20_000, -1))
    counts = torch.bincount(drawn, minlength=len(weights))
    assert counts[weights == 0].sum() == 0
    seen = weights > 0
    assert chisquare(counts[seen], 1000 * weights[seen].double()).pvalue > 0.001


def test_rows_are_drawn_independently():
    torch.manual_seed(0)
    a, b = draw_tokens(torch.zeros(2, 2).expand(1000, 2, 2).reshape(2000, 2)).view(1000, 2).T
    assert 400 < (a == b).sum() < 600


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 5), st.sampled_from([0.0, 0.3, 1.0]))
def test_two_sums_join_to_one_softmax(seed, first, second, hidden):
    """Also where nothing of the first part is seen."""
    generator = torch.Generator().manual_seed(seed)
    query, key, value = (torch.randn(2, 3, count, 4, generator=generator) for count in (2, *[first + second] * 2))
    query, masks = 20 * query, torch.rand(2, 3, 2, first + second, generator=generator) >= hidden
    masks[..., -1] = True
    parts = [slice(None, first), slice(first, None)]
    sums = [_summed(query, key[:, :, part], value[:, :, part], masks[..., part]) for part in parts]
    expected = scaled_dot_product_attention(query, key, value, masks, scale=1.0)
    torch.testing.assert_close(_joined(*sums), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(_joined(*reversed(sums)), expected, rtol=1e-4, atol=1e-5)


def rows_behind(lengths: Sequence[int], owners: Sequence[int], room: int, *, heads: int = 2, width: int = 4):
    cache = DynamicCache()
    shape = (len(lengths), heads, max(lengths), width)
    cache.update(torch.randn(shape), torch.randn(shape), 0)
    return RowsBehindPrefixes.of(cache, lengths, owners, room)


ascending = st.lists(st.integers(0, 3), min_size=1, max_size=7).map(sorted)


@settings(max_examples=60, deadline=None)
@given(ascending, st.data())
def test_rows_are_grouped_and_dropped(owners, data):
    rows = rows_behind([2, 1, 3, 2], owners, room=3)
    states = torch.randn(len(owners), 2, 2, 4)
    rows.add(torch.ones(len(owners), 2, dtype=torch.bool))
    rows.own(0, states, states + 1)
    kept = torch.tensor(data.draw(st.lists(st.booleans(), min_size=len(owners), max_size=len(owners))))
    for left in (torch.ones_like(kept), kept):
        if not left.all():
            rows.keep(left)
        owned = torch.tensor(owners)[left]
        assert torch.equal(rows.owners, owned)
        if not len(owned):
            continue
        grouped = rows.to_prefixes(states[left])
        assert len(grouped) == 4
        assert torch.equal(rows.to_rows(grouped), states[left])
        for prefix in range(4):
            own = states[left][owned == prefix]
            assert torch.equal(grouped[prefix, : len(own)], own)
    newest = torch.randn(int(kept.sum()), 2, 1, 4)
    rows.add(torch.ones(len(newest), 1, dtype=torch.bool))
    keys, values = rows.own(0, newest, newest)
    assert torch.equal(keys, torch.cat((states[kept], newest), 2))
    assert torch.equal(values, torch.cat((states[kept] + 1, newest), 2))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from([(4, 4), (4, 2), (6, 1), (6, 3)]),
    ascending,
    st.lists(st.integers(1, 3), min_size=7, max_size=7),
)
def test_attention_is_that_of_each_row_by_itself(seed, heads, owners, counts):
    """Queries and keys of every number of heads; rows begin with unlike numbers of tokens, padded in front."""
    torch.manual_seed(seed)
    lengths, (queries, groups), counts = [2, 1, 3, 2], heads, counts[: len(owners)]
    rows = rows_behind(lengths, owners, room=5, heads=groups)
    module = torch.nn.Module()
    module.layer_idx = 0
    first = max(counts)
    mask = torch.tensor([[0] * (first - count) + [1] * count for count in counts]).bool()
    known = [(rows.prefix_keys[0][o, :, : lengths[o]], rows.prefix_values[0][o, :, : lengths[o]]) for o in owners]
    for new, present in ((first, mask), (1, torch.ones(len(owners), 1, dtype=torch.bool)), (1, mask[:, -1:])):
        query, key, value = (torch.randn(len(owners), number, new, 4) for number in (queries, groups, groups))
        rows.add(present)
        mixed, _ = decoding_attention(module, query, key, value, None, rows=rows, scaling=0.5)
        for row, seen in enumerate(present):
            fresh = (key[row][:, seen], value[row][:, seen])
            known[row] = tuple(torch.cat(pair, dim=1) for pair in zip(known[row], fresh, strict=True))
            asked = query[row][:, seen]
            causal = torch.ones(asked.shape[1], known[row][0].shape[1], dtype=torch.bool)
            causal = causal.tril(known[row][0].shape[1] - asked.shape[1])
            expected = scaled_dot_product_attention(asked, *known[row], causal, scale=0.5, enable_gqa=True)
            torch.testing.assert_close(mixed[row, seen], expected.transpose(0, 1), rtol=1e-4, atol=1e-5)
