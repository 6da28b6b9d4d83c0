"""How rows share passes through a model, and deposits that cannot be."""

import pytest
import torch
from hypothesis import given, strategies as st

from lrd import rollouts
from lrd.rollouts import Deposits, by_length


@given(
    lengths=st.lists(st.integers(0, 30), max_size=12),
    most=st.integers(1, 100),
    start=st.sampled_from([0, 1, 20, 10**6]),
)
def test_passes_hold_each_row_once_and_no_more_than_their_tokens(lengths, most, start):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rollouts, "TOKENS_PER_PASS", most)
        patch.setattr(rollouts, "PASS_COSTS", start)
        passes = by_length(lengths)
    assert sorted(i for rows in passes for i in rows) == list(range(len(lengths)))
    for rows in passes:
        assert len(rows) == 1 or max(lengths[i] for i in rows) * len(rows) <= most


def test_a_pass_is_split_where_padding_costs_more_than_a_pass(monkeypatch):
    monkeypatch.setattr(rollouts, "PASS_COSTS", 100)
    # In one pass: 4 · 60 tokens and a start, 340. In two: 3 · 10 + 60 and two starts, 290. With 35: 240 against 265.
    assert [sorted(rows) for rows in by_length([10, 60, 10, 10])] == [[1], [0, 2, 3]]
    assert [sorted(rows) for rows in by_length([10, 35, 10, 10])] == [[0, 1, 2, 3]]


@pytest.mark.parametrize(
    "values, mask, says",
    [
        (torch.ones(2, 3), torch.zeros(2, 3, dtype=torch.bool), "values where deposit_mask says that nothing"),
        (
            torch.zeros(2, 3, device="meta"),
            torch.ones(2, 3, dtype=torch.bool),
            "lie on meta and cpu: want them on the CPU",
        ),
    ],
)
def test_deposits_that_cannot_be(values, mask, says):
    with pytest.raises(ValueError, match=says):
        Deposits(values, mask, dense=False)
