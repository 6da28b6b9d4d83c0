"""Effects of repairs by hand, from a frame of made-up cells."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from fakes import legible, write_cell, write_lines
from hypothesis import given, strategies as st

from lrd import results
from lrd.analysis import repair
from lrd.analysis.stats import mean_difference, ratio_of_means
from lrd.cell import Cell, grid, labelled
from lrd.report import figures
from lrd.report.text import NOTHING


def frame(**repairs: tuple[float, float]) -> pd.DataFrame:
    """Repair → what is lost of 0.9, and peak magnitude; three seeds and two arms, a seed 0.01 above the one before."""
    rows = [
        dict(cell=f"{name}-{arm}-{seed}", repair=name, arm=arm, seed=seed, rank=1.0 if arm == "r1" else np.nan,
             parameters=100.0, lost=lost + 0.01 * seed * (name != "none"), final=0.9 - lost + 0.1 * (arm == "full"),
             magnitude=size, length=20.0, blind=0.9)
        for name, (lost, size) in repairs.items() for arm in ("r1", "full") for seed in range(3)
    ]  # fmt: skip
    return pd.DataFrame(rows)


FOUND = frame(none=(0.8, 5.0), tame=(0.8, 1.0), good=(0.2, 5.0), both=(0.1, 1.0))


def test_effects_by_hand():
    # good − none: −0.6, −0.59, −0.58 in the three seeds: mean −0.59, sd 0.01, t(2) = 4.303 → ± 4.303·0.01/√3 = 0.0248.
    d = repair.effect(FOUND, "good", "lost")
    assert d is not None and (d.n, d.mean) == (3, pytest.approx(-0.59))
    assert d.high - d.mean == pytest.approx(4.3027 * 0.01 / math.sqrt(3), rel=1e-3)
    assert repair.effect(FOUND, "nothing", "lost") is None


def test_shares_by_hand():
    # none loses 0.8 in each seed, good 0.20, 0.21 and 0.22: the share is that of the mean, its interval the effect's.
    d = repair.share(FOUND, "good")
    assert d is not None and (d.n, d.mean) == (3, pytest.approx(100 * 0.59 / 0.8))
    assert d.high - d.mean == pytest.approx(100 * 4.3027 * 0.01 / math.sqrt(3) / 0.8, rel=1e-3)
    assert repair.percent(d) == "+74\N{NO-BREAK SPACE}% [+71,\N{NO-BREAK SPACE}+77]"
    # It ends 0.6 higher in every pair, since the frame's final values do not know of the 0.01 a seed.
    ends = repair.share(FOUND, "good", "final")
    assert ends is not None and (ends.low, ends.mean, ends.high) == pytest.approx((75, 75, 75))
    # A repair that keeps the share 1/4 of each seed's own loss has no spread, however much the seeds' losses differ.
    apart = FOUND.assign(lost=np.where(FOUND.repair == "none", 0.1, 0.075) * (5 + FOUND.seed))
    d = repair.share(apart, "good")
    assert d is not None and (d.low, d.mean, d.high) == pytest.approx((25, 25, 25))
    assert repair.share(frame(none=(0.0, 1.0), good=(0.0, 1.0)), "good") is None
    assert repair.share(FOUND, "nothing") is None and repair.percent(None) == NOTHING
    one = repair.share(FOUND[FOUND.seed == 1], "good")
    assert one is not None and repair.percent(one) == "+74\N{NO-BREAK SPACE}%"


def said_of_links(found):
    return repair.links_said(found).replace("\N{NO-BREAK SPACE}", " ")


def test_a_link_is_told_by_the_repairs_that_move_it_alone():
    """What decides is what moved, whatever the repair is called and however much it saves."""
    found = frame(**{"none": (0.8, 5.0), "cap": (0.6, 1.0), "canonical": (0.3, 1.0), "outcome": (0.1, 5.0)})
    shift = {"canonical": 0.45, "outcome": 0.45}  # of blindness, from 0.9
    found["blind"] -= found.repair.map(shift).fillna(0) + 0.001 * found.seed * found.repair.isin(shift)
    assert repair.share_rows(found)[1][:2] == ("canonical", "less magnitude and less blindness")
    assert repair.share_rows(found)[2][:2] == ("outcome", "less blindness")
    assert said_of_links(found) == (
        "Repairs shown to lessen magnitude and to move no other link save +24 % [+21, +27] (cap) of the loss. "
        "No repair is shown to lessen length: what it carries cannot be told. Repairs that lessen blindness all move "
        "another link too, and their shares are of both: +61 % [+58, +64] (canonical) of the loss. "
        "Past every link, with gold answers, outcome saves +86 % [+83, +89]."
    )
    useless = found[found.repair.isin(["none", "cap"])].assign(lost=0.8 + 0.1 * found.seed * (found.repair == "cap"))
    assert "Of cap it is not shown that they save any." in said_of_links(useless)
    longer = found.assign(length=20.0 + (found.repair == "cap") * (5 + 0.1 * found.seed))
    assert repair.share_rows(longer)[0][1] == "less magnitude and more length"
    assert "all move another link too" in said_of_links(longer)  # of magnitude as well
    assert "No repair is shown to lessen length" in said_of_links(longer)
    assert said_of_links(found.assign(lost=0.0)) == "Without a repair nothing is lost that a link could carry."
    assert repair.links_said(FOUND[:0]) == "" and repair.share_rows(FOUND[:0]) == []


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
    assert repair.percent(d) == "+1\N{NO-BREAK SPACE}% [no\N{NO-BREAK SPACE}bound]"
    # By hand: d̄ = 2, x̄ = 4, s_d² = s_x² = 1, s_dx = 1 over 3 seeds, t² = 18.51, so that t²/3 = 6.171:
    # (16 − 6.171)·q² − 2·(8 − 6.171)·q + (4 − 6.171) ≤ 0 → q = (1.829 ± √(1.829² + 9.829·2.171)) / 9.829.
    d = ratio_of_means(pd.Series([1.0, 2.0, 3.0]), pd.Series([3.0, 4.0, 5.0]))
    assert d is not None and (d.low, d.mean, d.high) == pytest.approx((-0.3194, 0.5, 0.6916), abs=2e-4)
    assert ratio_of_means(pd.Series([np.nan]), pd.Series([1.0])) is None


def test_the_figure_of_repairs_and_of_none():
    for found in (FOUND, FOUND[:0]):
        figure = figures.repairs(found)
        legible(figure)
        said = [text.get_text() for text in figure.legends[0].get_texts()]
        assert said == (["rank 1", "FullFT"] if len(found) else [])
        plt.close(figure)
    full = [line for line in figures.repairs(FOUND).axes[1].lines if line.get_marker() == figures.FULL_MARKER]
    assert [list(line.get_ydata()) for line in full] == [[i] for i in range(4) for _ in range(3)]
    bars = [line.get_xdata() for line in figures.repairs(FOUND).axes[1].lines if len(line.get_xdata()) == 2]
    adapters = np.array([[0.1] * 2, [0.1] * 2, [0.7] * 2, [0.8] * 2])  # without the 0.1 that FullFT has more
    assert np.array(bars) == pytest.approx(adapters)
    assert [t.get_text() for t in figures.repairs(FOUND).axes[0].get_yticklabels()] == ["none", "tame", "good", "both"]


def test_the_effect_of_rank_and_what_could_be_seen_of_it():
    d = repair.rank_effect(FOUND, "both")
    assert d is not None and d.mean == pytest.approx(-0.1) and repair.resolvable(d) == pytest.approx(0, abs=1e-9)
    noisy = FOUND.assign(final=FOUND.final + np.where(FOUND.arm == "r1", 0.1 * (FOUND.seed - 1), 0))
    d = repair.rank_effect(noisy, "both")  # −0.2, −0.1, 0: sd 0.1
    assert repair.resolvable(d) == pytest.approx(4.3027 * 0.1 / math.sqrt(3), rel=1e-3)
    assert math.isnan(repair.resolvable(None))


def test_what_is_said():
    # `tame` loses 0.00, 0.01 and 0.02 more than none: its interval includes none.
    said = repair.verdict(FOUND)
    assert "smaller: tame, both." in said and "loss of pass@1: good, both." in said and "Both: both." in said
    assert "Under both the smallest rank less full fine-tuning is −0.10" in said
    assert repair.verdict(FOUND[:0]) == "Not run: no cell is finished."
    assert "Both: none." in repair.verdict(FOUND[FOUND.repair.isin(["none", "tame"])])
    assert repair.value_rows(FOUND)[3][:2] == ("both", "2 of 6")  # 0.1 lost, and not 0.11 nor 0.12
    assert [row[0] for row in repair.effect_rows(FOUND)] == ["tame", "good", "both"]
    assert NOTHING not in repair.effect_rows(FOUND)[0]
    flat = FOUND.assign(final=np.where(FOUND.repair == "good", 0.0, FOUND.final))
    assert "Of those that lessen it, good is not shown to end higher than none" in repair.verdict(flat)
    assert "not shown to end higher" not in repair.verdict(FOUND)


def test_what_holds():
    """A cell may lose 0.1; `both` loses 0.1, 0.11 and 0.12 in its seeds."""
    assert repair.held(FOUND) == (
        "Cells that lose 0.1 at most from their peak to the last step: of adapters 1 of 3 under both, none under the "
        "others; of full fine-tuning 1 of 3 under both, none under the others."
    )
    kept = FOUND.assign(lost=np.where(FOUND["rank"].isna(), 0.0, FOUND.lost))
    assert repair.held(kept).endswith("none under the others; of full fine-tuning all.")
    assert repair.held(FOUND[FOUND.repair == "none"]).endswith("of adapters none; of full fine-tuning none.")
    assert repair.held(kept[kept["rank"].isna()]).endswith("last step: of full fine-tuning all.")
    assert repair.held(FOUND[:0]) == ""
    rounded = FOUND[FOUND.repair == "none"].assign(lost=0.4 - 0.3)  # a bit more than 0.1
    assert repair.held(rounded).endswith("of adapters all; of full fine-tuning all.")
    assert repair.value_rows(rounded)[0][1] == "6 of 6"


def test_what_is_shown_of_adapters_alone():
    """Full fine-tuning, which gains by `tame` alone and loses with `good`, has no part in it."""
    full = FOUND["rank"].isna()
    turned = {"none": 0.5, "tame": 0.0, "good": 2.0, "both": 0.5}
    found = FOUND.assign(lost=np.where(full, FOUND.repair.map(turned), FOUND.lost))
    assert repair.shown(found, "lost") == ["tame", "both"]
    said = "Of the adapters alone: shown to lose less with good and both, and to end higher with good and both."
    assert repair.of_adapters(found) == said
    assert repair.of_adapters(FOUND[FOUND.repair.isin(["none", "tame"])]).endswith(
        "with none, and to end higher with none."
    )
    assert repair.of_adapters(FOUND[full]) == repair.of_adapters(FOUND[:0]) == ""


def test_the_best_repair_for_the_effect_of_rank_asks_for_no_gold():
    found = frame(
        **{"none": (0.8, 5.0), "canonical": (0.3, 5.0), "canonical-minimum": (0.2, 1.0), "outcome": (0.1, 1.0)}
    )
    kept = ["canonical", "canonical-minimum", "outcome"]
    assert repair.best_without_gold(found, kept) == "canonical-minimum"
    assert "Under canonical-minimum the smallest rank" in repair.verdict(found)
    assert repair.best_without_gold(found, ["outcome"]) is None


def test_what_was_exploited(tmp_path):
    """Of each cell's wrong completions of the last evaluation the one with the largest last deposit."""
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
    shown = repair.exploits(found, tmp_path)
    assert [row["problem"] for row in shown] == ["more 0", "more 1", "more 2"] and "r1" in shown[0]["cell"]
    assert [row["problem"] for row in repair.exploits(found, tmp_path, 1)] == ["more 0"]
    assert repair.exploits(results.load("repair", tmp_path / "none")) == []
    assert repair._last_deposit({"token_rewards": [0.5, None], "deposit_mask": [True, True]}) == -math.inf


def test_the_rank_axis_under_one_repair(tmp_path):
    for rank, right in ((1, (4, 6, 8)), (None, (8, 10, 12)), (4, (5,))):
        for seed, n in enumerate(right):
            write_cell(tmp_path, Cell.load("repair-ranks", rank=rank, seed=seed), {0: 5, 10: n})
    rows = {row[0]: row[1:] for row in repair.rank_rows(results.load("repair-ranks", tmp_path))}
    assert rows["rank 1"] == (
        "0.300\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}0.100",
        "−0.200 [−0.200,\N{NO-BREAK SPACE}−0.200]",
        "0.00",
    )
    assert rows["full fine-tuning"][0].startswith("0.500") and rows["full fine-tuning"][1:] == ("", "")
    assert rows["rank 4"][0].startswith("0.250") and rows["rank 4"][2] == ""  # one seed has no interval
    assert rows["rank 64"] == (NOTHING, "", "") and list(rows) == [
        *("rank 1", "rank 4", "rank 16", "rank 64", "rank 256", "full fine-tuning"),
    ]
    assert {row[1:] for row in repair.rank_rows(results.load("repair-ranks", tmp_path / "none"))} == {(NOTHING, "", "")}


def test_what_is_said_of_every_rank(tmp_path):
    """Rank 4 ends 0.05, 0.00 and 0.05 higher: half the interval is 4.303 · 0.0289 / √3 = 0.07. Rank 16 has one seed."""
    plan = {1: (4, 6, 8), 4: (9, 10, 13), 16: (20,), 64: (9, 11, 13), None: (8, 10, 12)}
    for rank, right in plan.items():
        for seed, n in enumerate(right):
            write_cell(tmp_path, Cell.load("pace-ranks", rank=rank, seed=seed), {0: 5, 10: n})
    assert repair.rank_verdict(results.load("pace-ranks", tmp_path)) == (
        "Of all ranks, those whose interval against full fine-tuning excludes zero: rank 1 ends below it under "
        "process; rank 64 ends above it under process. By the widest interval a difference below 0.07 could not be "
        "told from none."
    )
    assert repair.rank_verdict(results.load("pace-ranks", tmp_path / "none")) == "Not run: no rank has an interval."


def test_every_rank_is_the_beginning_of_its_slow_pace():
    """At a tenth of the rates of preset `tiny`; what `pace` has too differs in its steps alone."""
    paces = {(c.rank, c.seed): c for c in grid("pace") if c.point["pace"].endswith("tenth")}
    usual = {(c.rank, c.seed): c.learning_rate for c in grid("tiny") if c.regime == "process"}
    for cell in grid("pace-ranks"):
        assert cell.learning_rate == pytest.approx(usual[cell.rank, cell.seed] / 10)
        if longer := paces.get((cell.rank, cell.seed)):
            there = {key: cell.config[key] for key in cell.config if cell.config[key] != longer.config[key]}
            assert there.keys() <= {"preset", "steps", "pace"} and longer.steps > cell.steps


def test_two_testbeds(tmp_path):
    """Repairs that lessen the loss on both, on one, or on neither; `cap` is no repair of the larger testbed."""
    plan = {"none": 2, "mean-to-go": 2, "canonical": 18, "minimum": 18, "cap": 18}  # right at the end, of 20
    for preset, change in (("repair", {"minimum": 2}), ("repair-small", {"canonical": 2})):
        for name, right in (plan | change).items():
            if preset == "repair" or name != "cap":
                for seed in range(3):
                    cell = Cell.load(preset, rank=1, seed=seed, repair=name)
                    size = 0.1 if name == "mean-to-go" else 1.0
                    write_cell(tmp_path, cell, {0: 5, 10: 18, 20: right}, advantage_std=size + 0.001 * seed)
    found = [results.load(name, tmp_path) for name in ("repair", "repair-small")]
    assert repair.across(*found) == (
        "With 12 of 63 cells on the testbed small, and of the repairs that both testbeds have, those that are shown to "
        "lessen the loss of pass@1 on both: none; on tiny alone: canonical; on small alone: minimum. Those that make "
        "the advantages smaller on both and are shown to lessen it on neither: mean-to-go."
    )
    unrun = results.load("repair-small", tmp_path / "none")
    assert repair.across(found[0], unrun) == "On the testbed small they have not been run."
    one = Cell.load("repair-small", rank=1, seed=0, repair="none")
    write_cell(tmp_path / "one", one, {0: 5, 20: 2})
    few = repair.across(found[0], results.load("repair-small", tmp_path / "one"))
    assert few == "On tiny or small too few cells are finished for an interval."


def test_the_preset(tmp_path):
    cells = grid("repair")
    assert len(cells) == 11 * 3 * 3 and len({cell.name for cell in cells}) == 99
    plain, tiny = next(c for c in cells if c.point["repair"] == "none"), grid("tiny")
    assert {k: v for k, v in plain.config.items() if k != "preset"} in [
        {k: v for k, v in cell.config.items() if k != "preset"} for cell in tiny
    ]
    both = Cell.load("repair", rank=1, seed=0, repair="canonical-minimum")
    assert (both.prm_reads, both.deposit_rule, both.point) == ("canonical", "minimum", {"repair": "canonical-minimum"})
    assert not len(repair.table(results.load("repair", tmp_path)))


def test_the_larger_testbed_has_repairs_of_the_same_names():
    """What is said of names, and which of them ask for gold, holds for both."""
    ours, theirs = (labelled(name)["repair"] for name in ("repair", "repair-small"))
    assert theirs.items() <= ours.items() and repair.gold() == ["outcome"]
