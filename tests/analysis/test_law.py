"""Statistics of the law: planted slopes and knees come back, within the intervals that are given for them."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from fakes import INFORMATION, PARAMETERS, STEPS, quiet, world, write_cell

from lrd import ROOT, results
from lrd.analysis import bootstrap, codebooks, law, sweep
from lrd.analysis.bootstrap import Side
from lrd.analysis.codebooks import Measured
from lrd.cell import grid
from lrd.data import codebook
from lrd.presets import read_preset
from lrd.report import display
from lrd.runs import published

# --- without noise


@pytest.mark.parametrize("c", [0.1, 0.65, 1.1])
def test_a_planted_slope_comes_back(c):
    m = quiet(c=c)
    assert law.capacity(m, m.mean()) == pytest.approx(
        c, rel=0.005
    )  # the slopes that are tried are half a percent apart


def test_by_hand():
    # 100 and 300 parameters, 200 bits to know: 0.9 a parameter gives 90 and all.
    bits, full = np.array([[90.0], [200.0]]), np.array([200.0])
    assert law.bits_a_parameter(bits, np.array([100.0, 300.0]), full) == pytest.approx(0.9, rel=0.005)
    assert math.isnan(law.bits_a_parameter(bits, np.array([100.0, 300.0]), np.array([0.0])))


def test_a_size_by_hand():
    # 80 % at 100 parameters, 95 % at 400: 90 % lies two thirds of the way, 100 · 4^(2/3) = 252.
    parameters = np.array([100.0, 400, 1600, 9000])
    assert law.matching_size(np.array([80.0, 95, 95, 100]), parameters) == pytest.approx(100 * 4 ** (2 / 3))
    # 60 is no loss, and the smallest may do
    assert law.matching_size(np.array([80.0, 60, 95, 100]), parameters) == pytest.approx(100 * 4 ** (1 + 2 / 3))
    assert law.matching_size(np.array([91.0, 60, 95, 100]), parameters) == pytest.approx(100)
    assert law.matching_size(np.array([10.0, 10, 80, 100]), parameters) == pytest.approx(1600 * (9000 / 1600) ** 0.5)
    assert math.isnan(law.matching_size(np.array([1.0, 1, 1, 0]), parameters))


NINETY = -math.log(0.1)  # bent curves reach 90 % at as many J / c


def test_planted_sizes_come_back():
    """Up to what a straight line between arms gives for a bent curve."""
    for c, absorbed in ((0.9, 1.0), (0.6, 0.5)):
        m = quiet(c=c, absorbed=absorbed, bent=True)
        np.testing.assert_allclose(law.matching_sizes(m, m.mean()), NINETY * absorbed * INFORMATION / c, rtol=0.08)
        assert law.growth(m, m.mean()) == pytest.approx(1, abs=0.02)


def test_equal_looks_undo_what_a_larger_codebook_has_less_time_for():
    """Each key is learned by its own number of looks: sizes grow with information at equal episodes alone."""
    looks = STEPS / INFORMATION[:, None]
    bits = INFORMATION[:, None] * (1 - np.exp(-looks * PARAMETERS[:, None, None] / 200))
    m = replace(quiet(), bits=np.repeat(bits[None], 6, 0))
    assert law.growth(m, m.mean()) == pytest.approx(1, abs=0.2)
    assert law.growth_at_equal_exposures(m, m.mean()) == pytest.approx(0, abs=0.02)


def test_a_size_that_does_not_grow():
    m = quiet()
    ends = np.minimum(PARAMETERS[:, None] / 1000, 1) * INFORMATION  # everywhere the same share for the same size
    flat = replace(m, bits=np.repeat(ends[None, ..., None], 6, 3) + np.zeros((4, 1, 1, 1)))
    assert law.growth(flat, flat.mean()) == pytest.approx(0, abs=0.01)
    at = 576 + 0 * INFORMATION  # 576 and 912 parameters learn 58 and 91 %
    assert (law.matching_sizes(flat, flat.mean()) > at).all() and (law.matching_sizes(flat, flat.mean()) < 912).all()


def test_an_asymptote_is_told_from_speed():
    a, tau = law.asymptote(STEPS, 500 * (1 - np.exp(-STEPS / 300)))
    assert a == pytest.approx(500, rel=0.02) and tau == pytest.approx(300, rel=0.05)
    slow = quiet(tau=400.0)  # at the last step 70 % of what is learned in the end
    assert law.capacity(slow, slow.mean()) < 0.75
    assert law.final_capacity(slow, slow.mean()) == pytest.approx(0.9, rel=0.03)


def test_sizes_at_equal_bits():
    m = quiet(tau=200.0)
    half = law.sizes_at_equal_bits(m, m.mean(), 0.5 * INFORMATION)
    # A share s of everything is learned by then, c too: the size is as it was. Curves are read off in straight lines.
    np.testing.assert_allclose(half, law.matching_sizes(m, m.mean()), rtol=0.05)
    assert np.isnan(law.sizes_at_equal_bits(m, m.mean(), 2 * INFORMATION)).all()


def test_one_replicate_gives_no_interval():
    m = quiet(n=1)
    found = law.estimate(m, law.capacity)
    assert found.value == pytest.approx(0.9, rel=0.005) and math.isnan(found.low) and found.n == 1


# --- intervals


def covered(statistic, truth, worlds: int, **about) -> float:
    hits = 0
    for i in range(worlds):
        found = law.estimate(world(np.random.default_rng(i), **about), statistic, 300)
        hits += found.low <= truth <= found.high
    return hits / worlds


@pytest.mark.slow
@pytest.mark.parametrize("c, n, least", [(0.9, 6, 0.88), (0.4, 6, 0.88), (0.9, bootstrap.LEAST, 0.84)])
def test_intervals_of_the_slope_cover_it(c, n, least):
    """95 % intervals: of 100 worlds of six replicates at least 88 (a binomial of 0.95 falls below with p < 0.002).

    Of the fewest that get an interval at least 84: of a normal mean it covers 92 %, and falls below with p < 0.005.
    """
    assert covered(law.capacity, c, 100, c=c, n=n) >= least


@pytest.mark.slow
def test_intervals_of_a_knee_and_of_its_growth_cover_them():
    true = quiet(c=0.6, absorbed=0.5, bent=True)  # as read off without noise
    for statistic in (lambda m, mean: law.matching_sizes(m, mean)[1], law.growth):
        assert covered(statistic, statistic(true, true.mean()), 100, c=0.6, absorbed=0.5, bent=True) >= 0.88


def test_a_ratio_of_rewards_covers_none_and_finds_one():
    same = [world(np.random.default_rng(i), c=0.6, absorbed=0.5, bent=True) for i in range(2)]
    assert law.compare(*same, 300).low < 1 < law.compare(*same, 300).high
    twice = world(np.random.default_rng(3), c=0.3, absorbed=0.5, bent=True)
    found = law.compare(twice, same[0], 300)
    assert found.low > 1 and found.value == pytest.approx(2, rel=0.2)


# --- from runs


def test_the_preset():
    cells = grid("law")
    assert len(cells) == 3 * 6 * 5 * 3 and len({cell.name for cell in cells}) == len(cells)
    assert all((c.advantage_norm == "none") == (c.regime == "supervised") for c in cells)
    assert {cell.seed for cell in grid("law-lr")}.isdisjoint(cell.seed for cell in cells)


@pytest.mark.parametrize("preset", ["law", "law-ranks", "law-small"])
def test_the_rates_are_those_that_the_sweep_took(preset):
    """The rates are those of the published sweep; where it has no results yet, none was taken."""
    taken = sweep.chosen(law.rate_shares(results.load(f"{preset}-lr", ROOT / "runs")))
    ours = {(cell.regime, cell.point["adapter"]): cell.learning_rate for cell in grid(preset)}
    assert taken == {at: ours[at] for at in taken} and (preset != "law" or len(taken) == len(ours))


def test_the_preset_of_the_larger_student():
    """Its sweep is of the same cells at other seeds; all codebooks have prompts enough, and keys of one length."""
    cells, swept = grid("law-small"), grid("law-small-lr")
    assert len(cells) <= 216 and len(swept) <= 108 and {c.seed for c in cells}.isdisjoint(c.seed for c in swept)
    assert all(c.prompts_per_step <= c.eval_problems == codebook.from_name(c.train_data).keys for c in [*cells, *swept])
    assert len({codebook.from_name(c.train_data).letters for c in cells}) == 1
    rates = sorted({cell.learning_rate for cell in swept})
    largest = [c for c in cells if c.point["codebook"] == "large-1" and c.seed == 0]
    same = [replace(c, preset="law-small-lr", seed=100, learning_rate=rate) for c in largest for rate in rates]
    assert sorted(map(repr, same)) == sorted(map(repr, swept))


def test_longer_runs_give_every_key_as_many_looks():
    """And are in all else the cells of preset `law`."""
    usual = {cell.name: cell for cell in grid("law")}
    for cell in grid("law-long"):
        assert cell.steps * cell.prompts_per_step == 240 * cell.eval_problems and cell.steps == 8 * cell.eval_every
        same = replace(usual[cell.name], preset="law-long", steps=cell.steps, eval_every=cell.eval_every)
        assert same == cell


def test_codebooks_side_by_side_at_equal_looks(tmp_path, monkeypatch):
    """64 keys in 480 steps and 32 in 240, at 32 prompts a step: evaluations of other steps, of the same looks."""
    monkeypatch.setattr(published, "FOLDER", tmp_path / "published")
    books, arms = ("codebook-32x2-1", "codebook-64x2-1"), ("rank-1", "full")
    for cell in grid("law-long"):
        known = (cell.regime, cell.seed) == ("outcome", 0) and cell.train_data in books
        if known and cell.point["adapter"] in arms:
            write_cell(tmp_path, cell, {step: 8 for step in (0, cell.steps // 2, cell.steps)})
    found = results.load("law-long", tmp_path)
    frame = codebooks.learned(found)
    assert sorted(frame.exposures.unique()) == [0, 120, 240]
    assert codebooks.measured(frame, "outcome") is None  # no step that all of them share
    m = codebooks.measured(frame, "outcome", "exposures")
    assert m is not None and m.steps.tolist() == [0, 120, 240] and m.bits.shape == (1, 2, 2, 3)


def test_trainings_of_the_student(monkeypatch):
    known = {"a": ["x"], "b": ["x"], "c": ["y", "z"]}
    kept = {name: {"environment": {"student": began}} for name, began in known.items()}
    monkeypatch.setattr(published, "record", kept.get)
    assert (law.trainings("a", "b"), law.trainings("a", "c")) == (1, 3)


def test_cells_that_two_presets_share():
    a = pd.DataFrame(
        {"cell": ["p", "p", "q", "r"], "step": [0, 60, 60, 60], "bits": [1.0, 60, 30, 9], "information": 64}
    )
    b = pd.DataFrame({"cell": ["p", "q", "r"], "step": [60, 60, 120], "bits": [44.0, 30, 20], "information": 64})
    assert codebooks.apart(a, b).tolist() == [0.25, 0] and not len(codebooks.apart(a, b[2:]))


def test_published_rows_stand_in_for_cells_that_are_not_at_hand(tmp_path, monkeypatch):
    monkeypatch.setattr(published, "FOLDER", tmp_path / "published")
    first, second, *_ = (cell for cell in grid("law") if cell.eval_problems == 64)
    write_cell(tmp_path, first, {0: 0, 60: 8})  # the bits that it lacks count as none
    found = results.load("law", tmp_path)
    assert (
        list(codebooks.learned(found).cell.unique()) == [first.name]
        and codebooks.with_kept(found).problems == found.problems
    )
    rows = codebooks.learned(found).assign(bits=7.0)
    published.write("law", {}, pd.concat([rows, rows.assign(cell=second.name)]))
    bits = codebooks.learned(found).groupby("cell").bits.sum()
    assert bits.to_dict() == {first.name: 0.0, second.name: 14.0}
    assert codebooks.learned(found).replicate.tolist() == ["0/1"] * 4
    whole = codebooks.with_kept(found)
    assert sorted(set(found.problems) - set(whole.problems)) == [f"{second.name}: absent"]
    assert "rest on the finished and published ones" in display.missing(whole)
    assert "rest on the finished ones" in display.missing(found)
    n = len(grid("law"))
    assert f"All {n} cells are finished, 1 of them published as a table." in display.missing(
        replace(whole, problems=[])
    )
    assert f"All {n} cells are finished and readable." in display.missing(
        replace(found, cells=found.cells.assign(state="finished"), problems=[])
    )
    assert whole.cells.set_index("cell").state[second.name] == "published"
    assert found.cells.set_index("cell").state[second.name] == "absent"


def test_without_runs_nothing_is_claimed(tmp_path, monkeypatch):
    monkeypatch.setattr(published, "FOLDER", tmp_path / "published")
    frame = codebooks.learned(results.load("law", tmp_path))
    assert not len(frame) and codebooks.measured(frame, "supervised") is None


def test_which_way_a_size_goes():
    """By the interval of its slope: of worlds where it grows, where it is fixed, where it shrinks, and of too few."""
    growing, *others = (world(np.random.default_rng(i)) for i in range(3))
    fixed = replace(growing, bits=np.concatenate([m.bits[:, :, :1] for m in (growing, *others)], 2))
    shrinking = replace(growing, bits=growing.bits[:, :, ::-1])
    few = replace(growing, bits=growing.bits[: bootstrap.LEAST - 1])
    sides = [law.estimate(m, law.growth).against(0) for m in (growing, fixed, shrinking, few)]
    assert sides == [Side.ABOVE, Side.UNDECIDED, Side.BELOW, Side.UNKNOWN]
    # Of a reward that teaches at once growth is the same at any step.
    assert law.estimate(growing, law.growth_at_equal_exposures).against(0) is Side.ABOVE


def test_pairs_have_the_denser_first():
    growing = world(np.random.default_rng(0))
    smaller = replace(growing, parameters=growing.parameters / 3)
    [pair] = law.pairs({"supervised": smaller, "outcome": growing})
    assert (pair.denser, pair.sparser) == ("supervised", "outcome")
    assert pair.at_end.value == pytest.approx(1 / 3) and pair.at_end.against(1) is Side.BELOW
    [pair] = law.pairs({"outcome": growing, "supervised": smaller})
    assert pair.at_end.against(1) is Side.ABOVE and law.pairs({"supervised": growing}) == []


def test_sizes_that_no_adapter_has():
    """4,096 bits ask for more than any adapter."""
    m = world(np.random.default_rng(0), c=0.1)
    assert law.beyond_adapters({"supervised": m}) == (1, 3)


def test_what_is_expected_is_no_matter_of_words(monkeypatch):
    """The range stands in the preset as numbers: other words in the prediction change no verdict."""
    about = {"prediction": "About one bit, between 0.8 and 0.9; from 2.5 to 3.5 at most.", "expected": [0, 1.1]}
    monkeypatch.setattr(law, "read_preset", lambda name: {"about": about})
    assert law.expected("law") == (0.0, 1.1)
    del about["expected"]
    assert law.expected("law") is None


def test_a_prediction_names_the_range_that_is_expected():
    for preset in ("law", "law-small"):
        prediction = read_preset(preset)["about"]["prediction"]
        assert all(f"{bound:g}" in prediction for bound in law.expected(preset))


def test_bits_a_parameter_against_a_range_and_what_a_fit_can_tell():
    held = world(np.random.default_rng(0))  # 0.9 a parameter
    less, more, around = (replace(held, parameters=PARAMETERS * by) for by in (10, 0.5, 0.88))  # the last [1.06, 1.13]
    sides = [law.estimate(m, law.final_capacity).against(0.65, 1.1) for m in (held, less, more, around)]
    assert sides == [Side.WITHIN, Side.BELOW, Side.ABOVE, Side.UNDECIDED]
    # Where even the smallest adapter holds all there is, a larger slope would fit as well.
    all_know = replace(less, bits=np.broadcast_to(INFORMATION[:, None], less.bits.shape).copy())
    assert law.capacity(all_know, all_know.mean()) == pytest.approx(4096 / 960, rel=0.005)
    assert law.estimate(less, law.final_capacity).high < law.largest_capacity(less) < 4096 / 960
    assert law.final_capacity(all_know, all_know.mean()) > law.largest_capacity(all_know)


def test_sizes_of_rewards_that_teach_at_other_speeds():
    """The same adapters under a reward that teaches all of them half as fast: at equal bits they need the same size."""
    fast = world(np.random.default_rng(1), tau=60.0, bent=True)
    slow = replace(fast, bits=np.stack([fast.bits[..., i // 2] for i in range(len(STEPS))], -1), regime="outcome")
    assert law.compare(fast, slow, equal_bits=True).value == pytest.approx(1, abs=0.1)
    half = world(np.random.default_rng(1), c=0.45, tau=60.0, bent=True)  # needs twice the size whatever is absorbed
    assert law.compare(fast, half, equal_bits=True).value == pytest.approx(0.5, rel=0.15)


def test_larger_adapters_that_learned_less():
    assert law.fallen(world(np.random.default_rng(0))) == {}
    short = world(np.random.default_rng(0), c=0.1)  # so that no arm reaches what there is to know
    bits = short.bits.copy()
    bits[:, 5, 1:] = 0.8 * bits[:, 4, 1:]
    bits[0, 3, 0] = 0.0  # once among replicates
    assert law.fallen(short) == {} and law.fallen(replace(short, bits=bits)) == {"a5": [1024, 4096]}


def test_rates_by_the_rule(tmp_path, monkeypatch):
    swept = results.load("law-lr", tmp_path)
    cells = [cell for cell in grid("law-lr") if cell.point["adapter"] == "rank-1" and cell.regime == "outcome"]
    share = {3e-4: 0.1, 1e-3: 0.3, 3e-3: 0.3, 1e-2: 0.2, 3e-2: 0.05}
    more = {32: 0.05, 64: -0.05, 128: 0.0}  # of a codebook; the mean over them is the number above
    rows = [
        dict(cell=c.name, step=step, information=2 * c.eval_problems,
             bits=2 * c.eval_problems * (share[c.learning_rate] + more[c.eval_problems] + (step == 60)))
        for c in cells
        for step in (60, 240)  # what was learned by 60 does not count
    ]  # fmt: skip
    monkeypatch.setattr(codebooks, "learned", lambda results: pd.DataFrame(rows))
    shares = law.rate_shares(swept)
    assert shares.loc[("outcome", "rank-1")].tolist() == pytest.approx(list(share.values()))
    assert shares.loc[("supervised", "full")].isna().all() and len(shares) == 3 * 5
    assert sweep.chosen(shares) == {("outcome", "rank-1"): 0.001}  # of equal ones the smaller
    rows = rows[:-2]  # a codebook is missing
    shares = law.rate_shares(swept)
    assert math.isnan(shares.loc[("outcome", "rank-1"), 3e-2]) and sweep.chosen(shares) == {}


def as_frame(m: Measured) -> pd.DataFrame:
    """The rows that `table` would give of a world."""
    index = np.ndindex(m.bits.shape)
    return pd.DataFrame(
        dict(cell="c", regime=m.regime, adapter=m.arms[a], rank=np.nan if m.arms[a] == "full" else 1.0,
             step=m.steps[s], replicate=str(r), information=m.information[i], parameters=m.parameters[a],
             bits=m.bits[r, a, i, s])
        for r, a, i, s in index
    )  # fmt: skip


def test_from_rows_to_arrays_and_back():
    m = world(np.random.default_rng(1), tau=100.0)
    rows = as_frame(m).sample(frac=1, random_state=0)
    again = codebooks.measured(rows, "supervised")
    assert again is not None and again.arms == m.arms
    np.testing.assert_array_equal(again.bits, m.bits)
    holed = codebooks.measured(rows[~((rows.replicate == "2") & (rows.adapter == "a3"))], "supervised")
    assert holed is not None and holed.n == 5  # a replicate that lacks a cell is left out
    assert codebooks.measured(rows[rows.adapter != "full"], "supervised") is None
    assert codebooks.measured(rows, "outcome") is None
