"""Options of the deposit and advantage rules, by hand; their defaults change nothing."""

import math
from pathlib import Path

import pytest
import torch
from fakes import deposits, one_group
from hypothesis import given, strategies as st

from lrd.grpo import advantages, bounded, whitened
from lrd.rewards import Deposits, shaping
from lrd.rewards.process import canonical
from lrd.train.loop import credit
from lrd.train.metrics import describe

# Steps of 0.9, 0.6, 0.8 | one of 0.5 | none.
GIVEN = deposits([[0.9, None, 0.6, 0.8], [None, 0.5, None, None], [None, None, None, None]])
TRAJECTORIES = st.lists(
    st.lists(st.one_of(st.none(), st.floats(-1, 1, width=32)), min_size=5, max_size=5), min_size=2, max_size=6
)


def close(got: Deposits, rows: list[list[float | None]]) -> None:
    want = deposits(rows)
    assert torch.equal(got.deposit_mask, want.deposit_mask) and got.dense == want.dense
    torch.testing.assert_close(got.token_rewards, want.token_rewards, atol=1e-6, rtol=0)


def test_rules_by_hand():
    rest = [[None, 0.5, None, None], [None] * 4]
    close(shaping.differences(GIVEN), [[0.9, None, -0.3, 0.2], *rest])
    close(shaping.pooled(GIVEN, "minimum"), [[None, None, None, 0.6], *rest])
    close(shaping.pooled(GIVEN, "mean"), [[None, None, None, 2.3 / 3], *rest])
    close(
        shaping.added_at_end(GIVEN, torch.tensor([1.0, -0.5, 2.0])),
        [[0.9, None, 0.6, 1.8], [None, 0, None, None], [None] * 4],
    )
    # Of 100 tokens: up to 80 nothing, then a line.
    got = shaping.overlong(torch.tensor([1, 80, 90, 95, 100]), 100)
    torch.testing.assert_close(got, torch.tensor([0.0, 0.0, 0.5, 0.75, 1.0]), atol=1e-6, rtol=0)


@given(TRAJECTORIES)
def test_differences_sum_to_the_last_deposit(rows):
    given_ = deposits(rows)
    ends = torch.where(shaping.last(given_), given_.token_rewards, 0.0).sum(1)
    torch.testing.assert_close(shaping.differences(given_).trajectory_rewards, ends, atol=1e-5, rtol=0)
    pooled = shaping.pooled(given_, "mean")
    assert torch.equal(pooled.deposit_mask.sum(1), given_.deposit_mask.any(1).long())


def test_steps_that_say_nothing_new_are_not_read():
    steps = ["a6*2=2\n", "\n", "=2\n", "=2\n", " a6*2=2\n", "b2-6=6"]
    assert canonical([3, 4, 6, 8, 12, 15], steps) == ([3, 6, 15], [steps[0], steps[2], steps[5]])
    assert canonical([0, 1], ["\n", "\n"]) == ([1], ["\n"]) and canonical([], []) == ([], [])


def test_a_mean_to_go_by_hand():
    # Deposits 1, 1 | 0, 0: units ±√3/2, two of them to go. The mean of two equal ones is one of them.
    given_ = deposits([[1.0, None, 1.0], [0.0, 0.0, None]])
    unit = math.sqrt(3) / 2
    want = torch.tensor([[unit, unit, unit], [-unit, -unit, 0]])
    torch.testing.assert_close(advantages(given_, one_group(2), to_go="mean"), want, atol=1e-6, rtol=0)
    # Units 1, 0 | −1: to go (1 + 0) / 2 up to the first, 0 after it.
    given_ = deposits([[None, 0.75, None, 0.5], [None, None, 0.25, None]])
    want = torch.tensor([[0.5, 0.5, 0, 0], [-1.0, -1.0, -1.0, 0]])
    torch.testing.assert_close(advantages(given_, one_group(2), to_go="mean"), want, atol=1e-6, rtol=0)
    dense = deposits([[1.0, 0.0], [0.0, 0.0]], dense=True)
    assert torch.equal(advantages(dense, one_group(2), to_go="mean"), advantages(dense, one_group(2)))


def test_deposits_as_they_are():
    given_ = deposits([[1.0, 1.0], [1.0, None]], dense=True)
    assert advantages(given_, one_group(2)).eq(0).all()
    assert torch.equal(advantages(given_, one_group(2), norm="none"), given_.token_rewards)


@given(st.lists(st.floats(-20, 20, width=32), min_size=6, max_size=6), st.sampled_from([0.5, 1.0]))
def test_magnitudes(values, cap):
    a, mask = torch.tensor([values]), torch.tensor([[True] * 5 + [False]])
    assert bounded(a, cap).abs().max() <= cap and torch.equal(bounded(a, 0.0), a)
    white = whitened(a, mask)
    assert white[0, 5] == 0
    if a[mask].std() > 1e-3:
        assert white[mask].std().item() == pytest.approx(1, abs=1e-3)
        assert white[mask].mean().item() == pytest.approx(0, abs=1e-3)


def test_equal_advantages_are_whitened_to_nothing():
    assert whitened(torch.full((2, 3), 4.0), torch.ones(2, 3, dtype=torch.bool)).eq(0).all()


# --- in a cell


@pytest.fixture
def raw(rollouts) -> Deposits:
    """A deposit on every token, rising: of four completions the first alone is right."""
    mask = rollouts.completion_mask
    values = torch.where(mask, torch.arange(mask.shape[1]) / 100, 0.0)
    return Deposits(values, mask, dense=False)


def test_defaults_are_the_originals(raw, rollouts, make_cell):
    cell = make_cell()
    assert shaping.shaped(raw, rollouts, cell) is raw
    assert torch.equal(credit(raw, rollouts, cell), advantages(raw, rollouts.group))


def test_each_option_reaches_the_advantages(raw, rollouts, make_cell):
    plain, seen = credit(raw, rollouts, make_cell()), []
    longest = int(rollouts.lengths.max())
    for option in (
        dict(deposit_rule="difference"), dict(deposit_rule="minimum"), dict(deposit_rule="mean"), dict(to_go="mean"),
        dict(overlong_penalty=1.0, max_completion_tokens=longest), dict(outcome_weight=1.0), dict(advantage_cap=0.3),
        dict(advantage_scale="whitened"), dict(advantage_norm="none"),
    ):  # fmt: skip
        a = credit(raw, rollouts, make_cell(**option))
        assert a.shape == plain.shape and a[~rollouts.completion_mask].eq(0).all() and torch.isfinite(a).all()
        assert not any(torch.equal(a, other) for other in [plain, *seen]), option
        seen.append(a)


def test_the_outcome_is_added_where_it_is_right(raw, rollouts, make_cell):
    got = shaping.shaped(raw, rollouts, make_cell(outcome_weight=0.5))
    gained = got.trajectory_rewards - raw.trajectory_rewards
    torch.testing.assert_close(gained, torch.tensor([0.5, 0, 0.5, 0]), atol=1e-6, rtol=0)


def test_how_sure_the_reward_is_of_wrong_endings(raw, rollouts, make_cell):
    """The mean over the two wrong completions of their last deposit: one of each length."""
    from lrd.models.logps import TokenLogps

    cell = make_cell(samples_per_prompt=2, prompts_per_step=2)
    zero = torch.zeros(raw.token_rewards.shape)
    found = describe(rollouts, raw, zero, TokenLogps(zero, zero), cell)
    ends = [(int(rollouts.lengths[i]) - 1) / 100 for i in (1, 3)]
    assert found["deposits/last_if_wrong"] == pytest.approx(sum(ends) / 2)


def test_no_option_knows_a_regime():
    assert "regime" not in Path(str(shaping.__file__)).read_text()
