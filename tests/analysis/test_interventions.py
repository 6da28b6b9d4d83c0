"""Effects of interventions by hand, from a frame of made-up cells."""

import math

import numpy as np
import pandas as pd
import pytest
from fakes import chained, intervened, write_cell, write_lines
from hypothesis import given, strategies as st

from lrd import results
from lrd.analysis import interventions
from lrd.analysis.stats import mean_difference, ratio_of_means
from lrd.cell import Cell, grid

FOUND = intervened(none=(0.8, 5.0), tame=(0.8, 1.0), good=(0.2, 5.0), both=(0.1, 1.0))


def test_effects_by_hand():
    # good − none: −0.6, −0.59, −0.58 in the three seeds: mean −0.59, sd 0.01, t(2) = 4.303 → ± 4.303·0.01/√3 = 0.0248.
    d = interventions.effect(FOUND, "good", "lost")
    assert d is not None and (d.n, d.mean) == (3, pytest.approx(-0.59))
    assert d.high - d.mean == pytest.approx(4.3027 * 0.01 / math.sqrt(3), rel=1e-3)
    assert interventions.effect(FOUND, "nothing", "lost") is None


def test_shares_by_hand():
    # none loses 0.8 in each seed, good 0.20, 0.21 and 0.22: the share is that of the mean, its interval the effect's.
    d = interventions.share(FOUND, "good")
    assert d is not None and (d.n, d.mean) == (3, pytest.approx(100 * 0.59 / 0.8))
    assert d.high - d.mean == pytest.approx(100 * 4.3027 * 0.01 / math.sqrt(3) / 0.8, rel=1e-3)
    # It ends 0.6 higher in every pair, since the frame's final values do not know of the 0.01 a seed.
    ends = interventions.share(FOUND, "good", "final")
    assert ends is not None and (ends.low, ends.mean, ends.high) == pytest.approx((75, 75, 75))
    # A repair that keeps the share 1/4 of each seed's own loss has no spread, however much the seeds' losses differ.
    apart = FOUND.assign(lost=np.where(FOUND.intervention == "none", 0.1, 0.075) * (5 + FOUND.seed))
    d = interventions.share(apart, "good")
    assert d is not None and (d.low, d.mean, d.high) == pytest.approx((25, 25, 25))
    assert interventions.share(intervened(none=(0.0, 1.0), good=(0.0, 1.0)), "good") is None
    assert interventions.share(FOUND, "nothing") is None
    one = interventions.share(FOUND[FOUND.seed == 1], "good")
    assert one is not None and one.mean == pytest.approx(100 * 0.59 / 0.8) and math.isnan(one.low)


def told_of(found):
    return {link.name: (link.alone, [*link.shares], link.unshown) for link in interventions.links(found)}


def test_a_link_is_told_by_what_moves_it_alone():
    """What decides is what moved, whatever the intervention is called and however much it saves."""
    found = chained()
    moved = {
        name: {link: d.mean < 0 for link, d in links.items()} for name, links in interventions.moves(found).items()
    }
    assert moved == {
        "cap": {"magnitude": True},
        "canonical": {"magnitude": True, "blind": True},
        "outcome": {"blind": True},
    }
    assert told_of(found) == {
        "magnitude": (True, ["cap"], []), "length": (False, [], []), "blind": (False, ["canonical"], [])
    }  # fmt: skip
    (magnitude, _, _) = interventions.links(found)
    assert magnitude.shares["cap"] == interventions.share(found, "cap")
    useless = found[found.intervention.isin(["none", "cap"])]
    useless = useless.assign(lost=0.8 + 0.1 * useless.seed * (useless.intervention == "cap"))
    assert told_of(useless)["magnitude"] == (True, ["cap"], ["cap"])
    longer = found.assign(length=20.0 + (found.intervention == "cap") * (5 + 0.1 * found.seed))
    assert not interventions.moves(longer)["cap"]["length"].mean < 0
    assert told_of(longer)["magnitude"][:2] == (False, ["cap", "canonical"]) and told_of(longer)["length"][1] == []
    assert interventions.links(FOUND[:0]) == [] and interventions.moves(FOUND[:0]) == {}


losses = st.lists(st.tuples(st.floats(0.05, 0.9), st.floats(0.0, 0.9)), min_size=2, max_size=6)


@given(losses, st.floats(0.1, 10))
def test_a_share_is_shown_where_its_effect_is(pairs, unit):
    """Fieller's interval holds its own ratio, excludes zero where Student's of the effect does, and knows no unit."""
    plain, repaired = (pd.Series(values) for values in zip(*pairs))
    ratio, gap = ratio_of_means(plain - repaired, plain), mean_difference(plain - repaired)
    assert ratio and gap and ratio.mean == pytest.approx(1 - repaired.mean() / plain.mean())
    assert ratio.low <= ratio.mean + 1e-9 and ratio.mean <= ratio.high + 1e-9
    bounded, known = math.isfinite(ratio.low), mean_difference(plain)
    assert known and bounded == (not known.includes_zero) == math.isfinite(ratio.high)
    if bounded and min(abs(gap.low), abs(gap.high)) > 1e-6:
        assert ratio.includes_zero == gap.includes_zero
    other = ratio_of_means(unit * (plain - repaired), unit * plain)
    assert other and (other.low, other.high) == pytest.approx((ratio.low, ratio.high), rel=1e-3, abs=1e-6)


def test_a_ratio_whose_lower_part_may_be_zero_has_no_bound():
    d = ratio_of_means(pd.Series([1.0, 2.0, 3.0]), pd.Series([0.1, 0.1, 4.0]))
    assert d is not None and (d.low, d.high) == (-math.inf, math.inf) and d.includes_zero
    # By hand: d̄ = 2, x̄ = 4, s_d² = s_x² = 1, s_dx = 1 over 3 seeds, t² = 18.51, so that t²/3 = 6.171:
    # (16 − 6.171)·q² − 2·(8 − 6.171)·q + (4 − 6.171) ≤ 0 → q = (1.829 ± √(1.829² + 9.829·2.171)) / 9.829.
    d = ratio_of_means(pd.Series([1.0, 2.0, 3.0]), pd.Series([3.0, 4.0, 5.0]))
    assert d is not None and (d.low, d.mean, d.high) == pytest.approx((-0.3194, 0.5, 0.6916), abs=2e-4)
    assert ratio_of_means(pd.Series([np.nan]), pd.Series([1.0])) is None


def test_the_effect_of_rank_and_what_could_be_seen_of_it():
    d = interventions.rank_effect(FOUND, "both")
    assert d is not None and d.mean == pytest.approx(-0.1) and interventions.resolvable(d) == pytest.approx(0, abs=1e-9)
    noisy = FOUND.assign(final=FOUND.final + np.where(FOUND.arm == "r1", 0.1 * (FOUND.seed - 1), 0))
    d = interventions.rank_effect(noisy, "both")  # −0.2, −0.1, 0: sd 0.1
    assert interventions.resolvable(d) == pytest.approx(4.3027 * 0.1 / math.sqrt(3), rel=1e-3)
    assert math.isnan(interventions.resolvable(None))


def test_what_is_shown():
    # `tame` loses 0.00, 0.01 and 0.02 more than none: its interval includes none.
    assert interventions.shown(FOUND, "magnitude") == ["tame", "both"]
    assert interventions.shown(FOUND, "lost") == ["good", "both"] == interventions.shown(FOUND, "final", 1)
    flat = FOUND.assign(final=np.where(FOUND.intervention == "good", 0.0, FOUND.final))
    assert interventions.shown(flat, "final", 1) == ["both"]
    full = FOUND["rank"].isna()  # gains by `tame` alone and loses with `good`: no part in what is shown of adapters
    turned = {"none": 0.5, "tame": 0.0, "good": 2.0, "both": 0.5}
    found = FOUND.assign(lost=np.where(full, FOUND.intervention.map(turned), FOUND.lost))
    assert interventions.shown(found, "lost") == ["tame", "both"]
    assert interventions.shown(found[~full], "lost") == ["good", "both"]


def test_what_holds():
    """A cell may lose 0.1; `both` loses 0.1, 0.11 and 0.12 in its seeds."""
    assert interventions.holding(FOUND) == {"none": (0, 6), "tame": (0, 6), "good": (0, 6), "both": (2, 6)}
    rounded = FOUND[FOUND.intervention == "none"].assign(lost=0.4 - 0.3)  # a bit more than 0.1
    assert interventions.holding(rounded) == {"none": (6, 6)} and interventions.holding(FOUND[:0]) == {}


def test_the_best_for_the_effect_of_rank_asks_for_no_gold():
    found = intervened(
        **{"none": (0.8, 5.0), "canonical": (0.3, 5.0), "canonical-minimum": (0.2, 1.0), "outcome": (0.1, 1.0)}
    )
    assert interventions.best_without_gold(found) == "canonical-minimum"
    assert interventions.best_without_gold(found[found.intervention.isin(["none", "outcome"])]) is None


def test_what_was_exploited(tmp_path):
    """Shown is the wrong completion of a cell's last evaluation whose last deposit is the largest."""
    rows = [(2, False, 0.99, "early"), (4, True, 0.98, "right"), (4, False, 0.7, "less"), (4, False, 0.9, "more")]
    for seed in range(4):
        path = write_cell(
            tmp_path, Cell.load("repair", rank=1, seed=seed % 3, repair=["none", "cap"][seed // 3]), {0: 5}
        )
        logged = [
            dict(step=step, correct=right, problem=f"{name} {seed}", token_rewards=[1.0, sure - 0.1 * seed, 0.0],
                 deposit_mask=[True, True, False])
            for step, right, sure, name in rows
        ]  # fmt: skip
        write_lines(path / "completions.jsonl", logged)
    found = results.load("repair", tmp_path)
    shown = interventions.exploits(found, tmp_path)
    assert [row["problem"] for row in shown] == ["more 0", "more 1", "more 2"] and "r1" in shown[0]["cell"]
    assert [row["problem"] for row in interventions.exploits(found, tmp_path, 1)] == ["more 0"]
    assert interventions.exploits(results.load("repair", tmp_path / "none")) == []
    assert interventions._last_deposit({"token_rewards": [0.5, None], "deposit_mask": [True, True]}) == -math.inf


def test_the_preset(tmp_path):
    cells = grid("repair")
    assert len(cells) == 11 * 3 * 3 and len({cell.name for cell in cells}) == 99
    plain, tiny = next(c for c in cells if c.point["repair"] == "none"), grid("tiny")
    assert {k: v for k, v in plain.config.items() if k != "preset"} in [
        {k: v for k, v in cell.config.items() if k != "preset"} for cell in tiny
    ]
    both = Cell.load("repair", rank=1, seed=0, repair="canonical-minimum")
    assert (both.prm_reads, both.deposit_rule, both.point) == ("canonical", "minimum", {"repair": "canonical-minimum"})
    empty = interventions.table(results.load("repair", tmp_path))
    assert not len(empty) and set(intervened(none=(0.8, 5.0))) == set(empty)


def test_which_ask_for_gold_answers(tmp_path):
    for label in ("none", "outcome"):
        write_cell(tmp_path, Cell.load("repair", rank=1, seed=0, repair=label), {0: 5, 10: 8})
    found = interventions.table(results.load("repair", tmp_path))
    assert dict(zip(found.intervention, found.gold)) == {"none": False, "outcome": True}
