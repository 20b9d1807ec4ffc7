"""Which tokens of padded rows stand in the packed sequence, and where."""

from collections import Counter, defaultdict
from collections.abc import Hashable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from marc.inference.packing import KnownPrefixes, PackedRows, Row, pack_rows, use_prefix_attention
from marc.model.prefix_attention import PrefixStates

some_rows = st.lists(
    st.builds(
        lambda ids, opening, shows, start: Row(ids, 1 + opening % (len(ids) - 1), shows, start),
        st.lists(st.integers(1, 3), min_size=2, max_size=6),
        st.integers(0, 5),
        st.sampled_from(["a video", "another"]),
        st.integers(0, 2),
    ),
    min_size=1,
    max_size=7,
)


def packed(rows: list[Row], known: KnownPrefixes | None = None) -> tuple[PackedRows, Tensor]:
    """Packs rows, and gives the padded rows; padding is 0."""
    width = max(row.start + len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    for index, row in enumerate(rows):
        ids[index, row.start : row.start + len(row.ids)] = torch.tensor(row.ids)
    return pack_rows(rows, width, "cpu", known), ids


def groups_of(rows: list[Row]) -> list[list[int]]:
    groups = defaultdict(list)
    for index, row in enumerate(rows):
        groups[row.shows, tuple(row.ids[: row.opening])].append(index)
    return list(groups.values())


@given(some_rows)
def test_what_rows_share_stands_once_and_the_rest_of_each_behind_it(rows):
    result, ids = packed(rows)
    groups = groups_of(rows)
    assert result.leaders == [group[0] for group in groups]
    prefixes = [token for leader in result.leaders for token in rows[leader].ids[: rows[leader].opening]]
    rests = [token for group in groups for row in group for token in rows[row].ids[rows[row].opening :]]
    assert result.choose(ids).tolist() == [prefixes + rests]


@given(some_rows)
def test_tokens_are_found_again(rows):
    result, ids = packed(rows)
    assert torch.equal(result.find(result.places), torch.arange(len(result.places)))
    rests = [
        index * ids.shape[1] + row.start + place
        for index, row in enumerate(rows)
        for place in range(row.opening, len(row.ids))
    ]
    found = result.find(torch.tensor(rests))
    assert torch.equal(result.choose(ids)[0, found], ids.flatten()[rests])


@given(some_rows)
def test_every_token_sees_its_prefix_and_its_row_up_to_itself(rows):
    result, ids = packed(rows)
    sequence = result.choose(ids)[0]
    sights = Counter(
        tuple(sequence[visible[seen]].tolist())
        for part in result.prefixes.questions
        for visible, mask in zip(part.seen, part.mask[:, 0], strict=True)
        for seen in mask
    )
    expected = Counter(tuple(row.ids[: place + 1]) for row in rows for place in range(row.opening, len(row.ids)))
    assert expected <= sights, "beside what padding sees"


@given(some_rows, st.data())
def test_what_was_read_before_does_not_stand_in_the_sequence(rows, data):
    beginnings = list(dict.fromkeys(row.beginning for row in rows))
    before = {each: read_before(rows, each) for each in beginnings if data.draw(st.booleans())}
    kept, joined = ({each: PrefixStates() for each in some} for some in (beginnings[:1], beginnings[-1:]))
    result, ids = packed(rows, KnownPrefixes(before, kept, joined))
    sequence = result.choose(ids)[0].tolist()
    groups = [each for each in beginnings if each not in before], [each for each in beginnings if each in before]
    read = [token for each in groups[0] for token in each[1]]
    rests = [
        token for each in [*groups[0], *groups[1]] for row in rows if row.beginning == each
        for token in row.ids[row.opening :]
    ]  # fmt: skip
    assert sequence == read + rests
    behind = sequence + [token for each in groups[1] for token in each[1]]
    sights = Counter(
        tuple(behind[place] for place in visible[seen].tolist())
        for part in result.prefixes.questions
        for visible, mask in zip(part.seen, part.mask[:, 0], strict=True)
        for seen in mask
    )
    expected = Counter(tuple(row.ids[: place + 1]) for row in rows for place in range(row.opening, len(row.ids)))
    assert expected <= sights, "beside what padding sees"
    for found, known in ((result.prefixes.kept, kept), (result.prefixes.joined, joined)):
        assert [states for states, _ in found] == [known[each] for each in groups[0] if each in known]
        assert all(
            sequence[place] == row
            for states, places in found
            for place, row in zip(places, own(known, states), strict=True)
        )


def own(known: dict[Hashable, PrefixStates], states: PrefixStates) -> tuple[int, ...]:
    """The tokens of a prefix with these states."""
    return next(beginning[1] for beginning, each in known.items() if each is states)


def read_before(rows: list[Row], beginning: Hashable) -> PrefixStates:
    states = PrefixStates()
    opening = next(row.opening for row in rows if row.beginning == beginning)
    with torch.no_grad():
        states.keep(0, torch.zeros(opening, 1, 1), torch.zeros(opening, 1, 1))
    return states


def test_rows_that_show_different_videos_never_share():
    alike = [Row((5, 5, 1), 2, "a video"), Row((5, 5, 2), 2, "another"), Row((5, 5, 3), 2, "a video")]
    result, ids = packed(alike)
    assert result.leaders == [0, 1]
    assert result.choose(ids).tolist() == [[5, 5, 5, 5, 1, 3, 2]]


def test_leading_dimensions_stay():
    rows = [Row((5, 6, 1), 2), Row((5, 6, 2), 2)]
    result, ids = packed(rows)
    positions = torch.stack([ids, 10 * ids, 100 * ids])
    assert result.choose(positions).tolist() == [[[5, 6, 1, 2]], [[50, 60, 10, 20]], [[500, 600, 100, 200]]]


@pytest.mark.parametrize("name", ["eager", "flash_attention_2"])
def test_attention_that_knows_no_prefixes_is_refused(name, tiny):
    model, _ = tiny()
    model.model.language_model.config._attn_implementation = name
    with pytest.raises(ValueError, match=name):
        use_prefix_attention(model)
