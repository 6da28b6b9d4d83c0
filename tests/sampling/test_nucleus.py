"""The nucleus of a batch against its definition."""

import pytest
import torch
from hypothesis import given, strategies as st

from lrd.sampling.nucleus import CapturedNucleus, nucleus as find_nucleus


@given(
    logits=st.lists(st.floats(-8, 8, width=32), min_size=2, max_size=300),
    top_p=st.floats(0.01, 0.99),
    shift=st.floats(-50, 50, width=32),
)
def test_the_nucleus_is_the_least_that_has_the_mass(logits, top_p, shift):
    rows = torch.tensor([logits, logits[::-1]]) + shift
    kept = torch.isfinite(find_nucleus(rows, torch.tensor([top_p, top_p])))
    probs = torch.softmax(rows.double(), -1)
    for row, inside in zip(probs, kept):
        least = row[inside].min()
        assert row[inside].sum() >= top_p - 1e-5
        assert row[row > least].sum() < top_p + 1e-5  # without the least likely of them it is not enough
        assert inside[row > least].all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a graph is captured on a GPU, and there is none here")
def test_a_captured_nucleus_is_the_nucleus_whatever_the_rows_before():
    find = CapturedNucleus()
    for rows in (20, 5, 40, 20):
        logits, top_p = torch.randn(rows, 1000, device="cuda"), torch.rand(rows, device="cuda").clamp(0.1, 0.9)
        assert torch.equal(find(logits, top_p).isfinite(), find_nucleus(logits, top_p).isfinite())


def test_the_nucleus_by_hand():
    logits = torch.tensor([[0.5, 0.25, 0.125, 0.125], [0.125, 0.25, 0.125, 0.5]]).log()
    kept = torch.isfinite(find_nucleus(logits, torch.tensor([0.6, 0.8])))
    assert kept.tolist() == [[True, True, False, False], [True, True, True, True]]  # equally likely: both or none
    assert torch.equal(find_nucleus(logits, 0.6)[0, :2], logits[0, :2])
    assert find_nucleus(torch.full((1, 3), torch.nan), 0.9).isnan().all()
