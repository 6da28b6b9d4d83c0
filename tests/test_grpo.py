"""Advantages and loss against values computed by hand, and the invariances that hold for any deposits.

Tolerances: normalization is in float64 and the result is rounded to float32 (relative 6e-8 a token, so 1e-6 leaves room
for a sum to go over a dozen deposits). Where σ + ε_adv enters with another σ, ε_adv/σ is added: σ ≥ 0.015 below, 1e-6.
"""

import math
from pathlib import Path

import pytest
import torch
from fakes import deposits, one_group
from hypothesis import given, strategies as st
from jaxtyping import TypeCheckError

from lrd import grpo
from lrd.cell import REGIMES
from lrd.grpo import advantages, aggregate, kl_estimate, loss
from lrd.rewards import Deposits

LRD = Path(grpo.__file__).parent
LN2 = math.log(2)


# --- advantages by hand


def test_one_deposit_a_trajectory_reaches_back_to_its_first_token():
    # Rewards 1, 0, 0, 0: μ = 1/4; σ² = ((3/4)² + 3·(1/4)²) / 3 = (9 + 3)/16/3 = 1/4, σ = 1/2 (divided by n − 1).
    # (1 − 1/4)/(1/2) = 1.5 and (0 − 1/4)/(1/2) = −0.5, on every token up to the deposit and on none after it.
    given_ = deposits([[None, None, 1.0], [None, 0.0, None], [0.0, None, None], [None, None, 0.0]])
    want = [[1.5, 1.5, 1.5], [-0.5, -0.5, 0], [-0.5, 0, 0], [-0.5, -0.5, -0.5]]
    torch.testing.assert_close(advantages(given_, one_group(4)), torch.tensor(want), atol=1e-6, rtol=0)


def test_several_deposits_are_normalized_together_and_summed_to_go():
    # Deposits 0.75, 0.5 | 0.25: μ = 0.5, σ² = (0.0625 + 0 + 0.0625)/2 = 0.0625, σ = 0.25; units 1, 0 | −1.
    # To go: the first trajectory has 1 + 0 up to its first deposit and 0 after; the second −1 up to its deposit.
    given_ = deposits([[None, 0.75, None, 0.5], [None, None, 0.25, None]])
    want = [[1.0, 1.0, 0, 0], [-1.0, -1.0, -1.0, 0]]
    torch.testing.assert_close(advantages(given_, one_group(2)), torch.tensor(want), atol=1e-6, rtol=0)

    # Deposits 1, 1 | 0, 0: μ = 1/2, σ² = 4·(1/4)/3 = 1/3, unit ±(1/2)·√3 = ±0.8660; two of them to go: ±√3 = ±1.7321.
    given_ = deposits([[1.0, None, 1.0], [0.0, 0.0, None]])
    half = math.sqrt(3) / 2
    want = [[2 * half, half, half], [-2 * half, -half, 0]]
    torch.testing.assert_close(advantages(given_, one_group(2)), torch.tensor(want), atol=1e-6, rtol=0)


def test_dense_deposits_stay_on_their_tokens():
    # Deposits −1, 0 | 1: μ = 0, σ² = (1 + 0 + 1)/2 = 1. No sum: each token has its own unit, padding none.
    given_ = deposits([[-1.0, 0.0], [1.0, None]], dense=True)
    want = [[-1.0, 0.0], [1.0, 0.0]]
    torch.testing.assert_close(advantages(given_, one_group(2)), torch.tensor(want), atol=1e-6, rtol=0)


def test_a_deposit_of_zero_is_a_deposit():
    # With the 0.0 of the second row: μ = 1/2, σ² = 1/2, units ±1/√2. Were it no deposit, 1.0 would stand alone: 0.
    given_ = deposits([[1.0, None], [None, 0.0]])
    want = [[math.sqrt(0.5), 0], [-math.sqrt(0.5), -math.sqrt(0.5)]]
    torch.testing.assert_close(advantages(given_, one_group(2)), torch.tensor(want), atol=1e-6, rtol=0)


def test_groups_are_normalized_apart():
    # Group 7: 1, 0 → ±1/√2 as above. Group 2: 10, 30 → μ = 20, σ² = 200, (10 − 20)/√200 = −1/√2. Interleaved.
    given_ = deposits([[1.0], [10.0], [0.0], [30.0]])
    half = math.sqrt(0.5)
    want = torch.tensor([[half], [-half], [-half], [half]])
    torch.testing.assert_close(advantages(given_, torch.tensor([7, 2, 7, 2])), want, atol=1e-6, rtol=0)


def test_epsilon_is_added_to_the_standard_deviation():
    # 1, 0: σ = 1/√2 = 0.70711; with ε = 0.5 the unit is 0.5/1.20711 = 0.41421.
    got = advantages(deposits([[1.0], [0.0]]), one_group(2), eps=0.5)
    torch.testing.assert_close(got, torch.tensor([[0.41421356], [-0.41421356]]), atol=1e-6, rtol=0)


def test_without_the_standard_deviation_deposits_are_centred():
    # Dr. GRPO. Deposits 0.75, 0.5 | 0.25: μ = 0.5, units 0.25, 0 | −0.25, and their returns.
    given_ = deposits([[None, 0.75, None, 0.5], [None, None, 0.25, None]])
    want = torch.tensor([[0.25, 0.25, 0, 0], [-0.25, -0.25, -0.25, 0]])
    assert torch.equal(advantages(given_, one_group(2), norm="mean"), want)
    assert not advantages(deposits([[0.3], [0.3], [0.3]]), one_group(3), norm="mean").any()


# --- advantages: what holds for any deposits

eighths = st.integers(-32, 32).map(lambda k: k / 8)  # exact in float32, as are their sums with one another


@st.composite
def batches(draw, values=eighths):
    """Deposits of 2–6 trajectories of up to 5 tokens in 1–3 groups, sparse or dense."""
    n, t = draw(st.integers(2, 6)), draw(st.integers(1, 5))
    rows = [[draw(st.none() | values) for _ in range(t)] for _ in range(n)]
    group = [draw(st.integers(0, 2)) for _ in range(n)]
    return deposits(rows, draw(st.booleans())), torch.tensor(group)


def shifted(batch: Deposits, by: torch.Tensor) -> Deposits:
    values = torch.where(batch.deposit_mask, batch.token_rewards + by, 0.0)
    return Deposits(values, batch.deposit_mask, batch.dense)


@given(batches(), st.lists(eighths, min_size=3, max_size=3))
def test_a_constant_added_to_a_groups_deposits_changes_nothing(batch, constants):
    values, group = batch
    moved = shifted(values, torch.tensor(constants)[group][:, None])
    torch.testing.assert_close(advantages(moved, group), advantages(values, group), atol=1e-6, rtol=1e-6)


@given(batches(), st.floats(1, 1000, width=32))
def test_a_positive_factor_on_the_deposits_changes_nothing(batch, factor):
    values, group = batch
    scaled = Deposits(values.token_rewards * factor, values.deposit_mask, values.dense)
    # One rounding of r·factor, relative 6e-8 of |r| ≤ 4, over σ ≥ 0.015: 1.6e-5 a token, five tokens to go.
    torch.testing.assert_close(advantages(scaled, group), advantages(values, group), atol=1e-4, rtol=1e-6)


@given(batches())
def test_the_sign_follows_the_deposits(batch):
    values, group = batch
    negated = Deposits(-values.token_rewards, values.deposit_mask, values.dense)
    torch.testing.assert_close(advantages(negated, group), -advantages(values, group), atol=1e-6, rtol=1e-6)


@given(batches(), st.integers(1, 4))
def test_padding_columns_change_nothing(batch, more):
    values, group = batch
    n, t = values.token_rewards.shape
    rewards = torch.cat([values.token_rewards, torch.zeros(n, more)], 1)
    mask = torch.cat([values.deposit_mask, torch.zeros(n, more, dtype=torch.bool)], 1)
    padded = advantages(Deposits(rewards, mask, values.dense), group)
    assert torch.equal(padded[:, :t], advantages(values, group))
    assert not padded[:, t:].any()


@given(batches(), st.randoms())
def test_the_order_of_trajectories_does_not_matter(batch, random):
    values, group = batch
    order = list(range(len(group)))
    random.shuffle(order)
    mixed = Deposits(values.token_rewards[order], values.deposit_mask[order], values.dense)
    torch.testing.assert_close(advantages(mixed, group[order]), advantages(values, group)[order], atol=1e-6, rtol=1e-6)


@given(batches(), st.integers(0, 2), eighths)
def test_a_group_knows_nothing_of_the_others(batch, p, constant):
    values, group = batch
    others = torch.where((group == p)[:, None], 0.0, values.token_rewards * 3 + constant)
    others = torch.where(values.deposit_mask & (group != p)[:, None], others, values.token_rewards)
    changed = advantages(Deposits(others, values.deposit_mask, values.dense), group)
    assert torch.equal(changed[group == p], advantages(values, group)[group == p])


@given(batches())
def test_units_have_mean_zero_and_unit_variance(batch):
    values, group = batch
    dense = Deposits(values.token_rewards, values.deposit_mask, dense=True)
    units = advantages(dense, group)
    assert not units[~values.deposit_mask].any()
    for p in group.unique():
        mine = values.deposit_mask & (group == p)[:, None]
        if len(values.token_rewards[mine].unique()) > 1:
            assert abs(units[mine].double().mean()) < 1e-6
            assert abs(units[mine].double().std() - 1) < 2e-6


@given(batches())
def test_nothing_after_the_last_deposit(batch):
    values, group = batch
    reached = values.deposit_mask if values.dense else values.deposit_mask.flip(1).cummax(1).values.flip(1)
    assert not advantages(values, group)[~reached].any()  # exactly


@given(
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.sampled_from([2, 3, 5, 6, 7, 11, 13]),
    st.booleans(),
    st.sampled_from([1e-8, 0.0]),
)
def test_a_group_of_equal_deposits_has_exactly_zero_advantage(value, n, dense, eps):
    got = advantages(deposits([[None, value, None]] * n, dense), one_group(n), eps)
    assert torch.equal(got, torch.zeros(n, 3))


@given(st.floats(width=32, allow_nan=False, allow_infinity=False), st.booleans())
def test_a_single_deposit_has_exactly_zero_advantage(value, dense):
    got = advantages(deposits([[None, value], [None, None]], dense), one_group(2))
    assert torch.equal(got, torch.zeros(2, 2))


def test_the_smallest_difference_is_still_a_signal():
    # Equal up to one float32 step: small, but not equal. The unit is ±1/√2 whatever the scale, as long as σ ≫ ε_adv.
    one = torch.nextafter(torch.tensor(0.5), torch.tensor(1.0)).item()  # 0.5 + 6e-8, σ = 4e-8: 0.7071·4.2/5.2
    got = advantages(deposits([[one], [0.5]]), one_group(2))
    assert got[0, 0] > 0.5 and got[1, 0] == -got[0, 0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dense", [False, True])
def test_a_broken_reward_is_not_hidden(bad, dense):
    got = advantages(deposits([[None, bad], [None, 1.0], [None, 1.0], [None, 0.0]], dense), torch.tensor([0, 0, 1, 1]))
    assert got[0].isnan().any() and got[1].isnan().any()  # its whole group
    assert got[2:].isfinite().all()  # and no other


def test_a_broken_reward_reaches_the_loss():
    got = advantages(deposits([[math.nan], [1.0]]), one_group(2))
    zero = torch.zeros(2, 1)
    assert loss(zero, zero, zero, got, torch.ones(2, 1, dtype=torch.bool))[0].isnan()


# --- the contract


def test_trajectory_rewards_are_sums():
    given_ = deposits([[0.25, None, 0.5], [None, None, None]])
    assert given_.trajectory_rewards.tolist() == [0.75, 0.0]


@pytest.mark.parametrize(
    "rewards, mask",
    [
        (torch.zeros(2, 3), torch.zeros(2, 4, dtype=torch.bool)),
        (torch.zeros(3, 2), torch.zeros(2, 3, dtype=torch.bool)),
        (torch.zeros(3), torch.zeros(3, dtype=torch.bool)),
        (torch.zeros(2, 3), torch.zeros(2, 3)),
        (torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.long)),
        (torch.zeros(2, 3, dtype=torch.long), torch.ones(2, 3, dtype=torch.bool)),
        (torch.ones(2, 3), torch.zeros(2, 3, dtype=torch.bool)),
        (torch.full((2, 3), math.nan), torch.zeros(2, 3, dtype=torch.bool)),
    ],
    ids=["width", "transposed", "flat", "float mask", "int mask", "int rewards", "off deposit", "NaN off deposit"],
)
def test_deposits_that_do_not_fit_are_refused(rewards, mask, unchecked):
    with pytest.raises(ValueError, match=r"want|nothing was deposited"):
        Deposits(rewards, mask, dense=False)


def test_shapes_are_checked_while_the_tests_run():
    with pytest.raises(TypeCheckError):
        aggregate(torch.zeros(2, 3), torch.zeros(2, 4, dtype=torch.bool))
    with pytest.raises(TypeCheckError):
        aggregate(torch.zeros(2, 3), torch.zeros(2, 3))


# --- KL


def pair(p: float, q: float) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([[math.log(p)]]), torch.tensor([[math.log(q)]])


@pytest.mark.parametrize(
    "estimator, above, below",
    [
        # r = log π_θ − log π_ref = ln 2 for (1/2, 1/4) and −ln 2 for (1/4, 1/2)
        ("paper", LN2 / 2, 0.0),  # max(1/2 · ln 2, 0); max(−1/4 · ln 2, 0)
        ("k1", LN2, -LN2),
        ("k2", LN2**2 / 2, LN2**2 / 2),
        ("k3", 1 / 2 - 1 + LN2, 2 - 1 - LN2),  # e^−r − 1 + r
    ],
)
def test_kl_estimators_by_hand(estimator, above, below):
    assert kl_estimate(*pair(1 / 2, 1 / 4), estimator).item() == pytest.approx(above, abs=1e-6)
    assert kl_estimate(*pair(1 / 4, 1 / 2), estimator).item() == pytest.approx(below, abs=1e-6)
    assert kl_estimate(*pair(1 / 3, 1 / 3), estimator).item() == 0


@given(st.floats(-30, 0), st.floats(-30, 0))
def test_kl_estimates_are_not_negative(logp, ref):
    p, q = torch.tensor([[logp]]), torch.tensor([[ref]])
    for estimator in ("paper", "k2"):
        assert kl_estimate(p, q, estimator).item() >= 0
    # k3 is e^−r − 1 + r ≥ 0 up to the rounding of its terms, each up to e^30
    assert kl_estimate(p.double(), q.double(), "k3").item() >= -1e-15


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_kl_estimators_estimate_the_kl(estimator):
    """k1 and k3 have the KL as their exact mean under π_θ; k2 has it to second order."""
    p, q = torch.tensor([0.5, 0.3, 0.2]).log(), torch.tensor([0.48, 0.3, 0.22]).log()
    true = (p.exp() * (p - q)).sum().item()  # 0.5·ln(0.5/0.48) + 0.2·ln(0.2/0.22) = 0.02041 − 0.01906 = 0.00135
    mean = (p.exp() * kl_estimate(p[None], q[None], estimator)[0]).sum().item()
    assert true == pytest.approx(0.001349, abs=2e-6)
    assert mean == pytest.approx(true, rel=0.03 if estimator == "k2" else 1e-4)


@pytest.mark.parametrize(
    "estimator, above, equal, below",
    [
        # d/d log π_θ at r = ln 2, 0, −ln 2, from (1/2, 1/4), (1/3, 1/3), (1/4, 1/2); descent moves against it
        ("paper", (1 + LN2) / 2, 1 / 3, 0.0),  # π(1 + r) where r ≥ 0: away from tokens even at the reference itself
        ("k1", 1.0, 1.0, 1.0),
        ("k2", LN2, 0.0, -LN2),  # r
        ("k3", 1 / 2, 0.0, -1.0),  # 1 − e^−r
    ],
)
def test_the_kl_penalty_pulls_to_the_reference(estimator, above, equal, below):
    for (p, ref), want in ((pair(1 / 2, 1 / 4), above), (pair(1 / 3, 1 / 3), equal), (pair(1 / 4, 1 / 2), below)):
        logps = p.clone().requires_grad_()
        options = dict(kl_coef=0.5, kl_estimator=estimator)
        value, _ = loss(logps, p, ref, torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool), **options)
        value.backward()
        assert logps.grad.item() == pytest.approx(0.5 * want, abs=1e-6)


def test_unknown_choices_are_refused():
    zero, mask = torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool)
    with pytest.raises(ValueError, match="k4"):
        kl_estimate(zero, zero, "k4")
    with pytest.raises(ValueError, match="median"):
        aggregate(zero, mask, "median")


# --- the loss by hand


def ratio_case(ratio: float, advantage: float, **options) -> tuple[float, float, dict[str, float]]:
    """Loss, its gradient in log π_θ, and metrics, of one token with π_θ/π_old = ratio; no KL."""
    old = torch.tensor([[-1.0]])
    logps = (old + math.log(ratio)).requires_grad_()
    value, metrics = loss(
        logps, old, old, torch.tensor([[advantage]]), torch.ones(1, 1, dtype=torch.bool), kl_coef=0.0, **options
    )
    value.backward()
    return value.item(), logps.grad.item(), metrics


@pytest.mark.parametrize(
    "ratio, advantage, want, slope, clipped",
    [
        # L = −min(ρA, clip(ρ, 0.8, 1.2)·A); dL/d log π_θ = −ρA where it is not clipped
        (1.0, 2.0, -2.0, -2.0, 0),
        (1.1, 2.0, -2.2, -2.2, 0),
        (1.5, 2.0, -2.4, 0.0, 1),  # min(3, 2.4): far enough up, no push further
        (0.5, 2.0, -1.0, -1.0, 0),  # min(1, 1.6): too far down for a good token, full push up
        (0.5, -2.0, 1.6, 0.0, 1),  # min(−1, −1.6): far enough down
        (1.5, -2.0, 3.0, 3.0, 0),  # min(−3, −2.4): too far up for a bad token, full push down
        (1.5, 0.0, 0.0, 0.0, 0),
    ],
)
def test_clipping(ratio, advantage, want, slope, clipped):
    value, gradient, metrics = ratio_case(ratio, advantage)
    assert value == pytest.approx(want, abs=1e-6)
    assert gradient == pytest.approx(slope, abs=1e-6) and (slope != 0 or gradient == 0)
    assert metrics["clip_ratio/region_mean"] == clipped


def test_the_clip_range_is_an_option():
    value, gradient, _ = ratio_case(1.5, 2.0, clip_epsilon=0.6)  # 1.5 < 1.6: −3
    assert (value, gradient) == (pytest.approx(-3.0), pytest.approx(-3.0))


@pytest.mark.parametrize(
    "ratio, advantage, want, slope",
    [
        (1.5, 2.0, -2.8, 0.0),  # min(3, 1.4·2): clipped at the higher bound
        (1.3, 2.0, -2.6, -2.6),  # which 1.3 does not reach
        (0.5, -2.0, 1.6, 0.0),  # below, the lower one stays: min(−1, −1.6)
    ],
)
def test_clip_higher_by_hand(ratio, advantage, want, slope):
    value, gradient, _ = ratio_case(ratio, advantage, clip_epsilon_high=0.4)
    assert value == pytest.approx(want, abs=1e-6) and gradient == pytest.approx(slope, abs=1e-6)


def test_the_ratio_of_a_sequence_by_hand():
    # Ratios 2, 1/2·…: row 1 has ln ratios ln 4 and 0, mean ln 2: ratio 2. Row 2 has −ln 2 alone, the other is padding.
    log_ratio = torch.tensor([[4.0, 1.0], [0.5, 9.0]]).log()
    mask = torch.tensor([[True, True], [True, False]])
    got = grpo.ratios(log_ratio, torch.zeros(2, 2), mask, "sequence")
    torch.testing.assert_close(got, torch.tensor([[2.0, 2.0], [0.5, 0.5]]))
    torch.testing.assert_close(grpo.ratios(log_ratio, torch.zeros(2, 2), mask), log_ratio.exp())
    # Both tokens of row 1 are clipped with A = 1: 1.2. Row 2 with A = −1: min(−0.5, −0.8). Mean of three tokens.
    value, metrics = loss(log_ratio, torch.zeros(2, 2), log_ratio, torch.tensor([[1.0, 1.0], [-1.0, 0.0]]), mask,
                          kl_coef=0.0, ratio_level="sequence")  # fmt: skip
    assert value.item() == pytest.approx(-(1.2 + 1.2 - 0.8) / 3, abs=1e-6)
    assert metrics["clip_ratio/region_mean"] == 1


def test_a_token_weighs_what_the_sampler_gave_it_too_little():
    # π_old / π_sampler = 0.5/0.25 = 2, 0.5/0.1 = 5 (capped at 3) and 0.2/0.4 = 1/2; the KL penalty is not weighted.
    old, sampler = torch.tensor([[0.5, 0.5, 0.2]]).log(), torch.tensor([[0.25, 0.1, 0.4]]).log()
    weights = grpo.sampler_weights(old, sampler, 3.0)
    torch.testing.assert_close(weights, torch.tensor([[2.0, 3.0, 0.5]]))
    a, mask = torch.tensor([[1.0, 1.0, -2.0]]), torch.ones(1, 3, dtype=torch.bool)
    value, _ = loss(old, old, old - LN2, a, mask, weights=weights, kl_coef=0.1, kl_estimator="k1")
    assert value.item() == pytest.approx(-(2 + 3 - 1) / 3 + 0.1 * LN2, abs=1e-6)


def test_completions_that_were_cut_can_be_left_out(rollouts):
    assert rollouts.truncated.tolist() == [False, True, False, False]
    mask = grpo.learned(rollouts, "masked")
    assert not mask[1].any() and torch.equal(mask[[0, 2, 3]], rollouts.completion_mask[[0, 2, 3]])
    assert torch.equal(grpo.learned(rollouts), rollouts.completion_mask)


def test_the_whole_loss_by_hand():
    # Tokens (π_θ, π_old, π_ref, A), β = 0.1, ε = 0.2, the report's KL:
    #   row 1: (1/2, 1/2, 1/4, 1):    ρ = 1,   gain 1,    KL = 1/2 · ln 2 = 0.34657 → 1 − 0.034657 = 0.965343
    #          (0.6, 0.4, 0.6, 2):    ρ = 1.5, gain 2.4,  KL = 0                    → 2.4
    #   row 2: (1/4, 1/2, 1/2, −1):   ρ = 0.5, gain −0.8, KL = max(−…, 0) = 0       → −0.8
    #          padding
    # token: −(0.965343 + 2.4 − 0.8)/3 = −0.855114. sequence: −((0.965343 + 2.4)/2 − 0.8)/2 = −0.441336.
    # constant, T = 2: −2.565343/(2·2) = −0.641336; with 10 tokens: −2.565343/20 = −0.128267.
    # KL metric: 0.34657/3 = 0.115525. Clipped: the second and third of 3 tokens.
    logps = torch.tensor([[0.5, 0.6], [0.25, 1.0]]).log()
    old = torch.tensor([[0.5, 0.4], [0.5, 1.0]]).log()
    ref = torch.tensor([[0.25, 0.6], [0.5, 1.0]]).log()
    advantage = torch.tensor([[1.0, 2.0], [-1.0, 0.0]])
    mask = torch.tensor([[True, True], [True, False]])
    for how, limit, want in (
        ("token", None, -0.855114),
        ("sequence", None, -0.441336),
        ("constant", None, -0.641336),
        ("constant", 10, -0.128267),
    ):
        value, metrics = loss(logps, old, ref, advantage, mask, kl_coef=0.1, aggregation=how, max_tokens=limit)
        assert value.item() == pytest.approx(want, abs=2e-6)
        assert metrics["kl"] == pytest.approx(LN2 / 2 / 3, abs=1e-6)  # always the mean over tokens
        assert metrics["clip_ratio/region_mean"] == pytest.approx(2 / 3, abs=1e-6)


def test_aggregation_by_hand():
    x = torch.tensor([[2.0, 9.0, 9.0, 9.0], [1.0, 2.0, 6.0, 9.0]])  # the nines are padding
    mask = torch.tensor([[True, False, False, False], [True, True, True, False]])
    assert aggregate(x, mask, "token").item() == 11 / 4  # (2 + 1 + 2 + 6) / 4
    assert aggregate(x, mask, "sequence").item() == 2.5  # (2 + 9/3) / 2
    assert aggregate(x, mask, "constant").item() == 11 / 8  # N·T = 2·4
    assert aggregate(x, mask, "constant", 10).item() == pytest.approx(11 / 20)


@pytest.mark.parametrize("how", ["token", "sequence", "constant"])
def test_empty_trajectories_are_zero_and_not_nan(how):
    x = torch.ones(2, 2, requires_grad=True)
    value = aggregate(x, torch.zeros(2, 2, dtype=torch.bool), how)
    value.backward()
    assert value.item() == 0 and not x.grad.any()


@pytest.mark.parametrize("how", ["token", "sequence", "constant"])
@given(seed=st.integers(0, 10**6), more=st.integers(1, 4))
def test_the_loss_does_not_see_padding(how, seed, more):
    """Neither how many columns of it there are nor what stands in them. Summation order may differ: 1e-6."""
    generator = torch.Generator().manual_seed(seed)
    n, t = 4, 5
    valid = torch.arange(t) < torch.tensor([5, 3, 1, 0])[:, None]
    logps, old, ref = -3 * torch.rand(3, n, t, generator=generator)
    advantage = torch.randn(n, t, generator=generator)
    options = dict(aggregation=how, max_tokens=t, kl_estimator="k3")

    def wide(x, fill):
        return torch.cat([torch.where(valid, x, fill), torch.full((n, more), fill)], 1)

    def gradient(x, *rest):
        x = x.clone().requires_grad_()
        value, _ = loss(x, *rest, **options)
        value.backward()
        return value.detach(), x.grad

    value, slope = gradient(logps, old, ref, advantage, valid)
    mask = torch.cat([valid, torch.zeros(n, more, dtype=torch.bool)], 1)
    wide_value, wide_slope = gradient(wide(logps, -2.0), wide(old, -1.0), wide(ref, -3.0), wide(advantage, 7.0), mask)
    torch.testing.assert_close(wide_value, value, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(wide_slope[:, :t], slope, atol=1e-6, rtol=1e-6)
    assert not wide_slope[:, t:].any() and not wide_slope[:, :t][~valid].any()


def test_only_the_learner_gets_a_gradient():
    tensors = [torch.full((1, 2), x, requires_grad=True) for x in (-1.0, -1.0, -2.0, 1.0)]
    for x in tensors[1:]:
        x.requires_grad_(False)
    value, metrics = loss(*tensors, torch.ones(1, 2, dtype=torch.bool))
    value.backward()
    assert tensors[0].grad is not None and all(isinstance(x, float) for x in metrics.values())


# --- what the algorithm does not know


@pytest.mark.parametrize("regime", REGIMES)
def test_the_loss_names_no_regime(regime):
    assert regime not in (LRD / "grpo.py").read_text(encoding="utf-8").lower()
