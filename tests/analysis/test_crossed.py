"""Intervals over students, seeds and problems, on simulated runs whose truth is known. All seeds are fixed."""

import numpy as np
import pytest

from lrd.analysis import crossed
from lrd.analysis.crossed import Contrast
from lrd.analysis.stats import Verdict

PROBLEMS, RUNS = 120, 400
NOTHING = (0.0, 0.0, 0.0)
WORLDS = [NOTHING, (0.05, 0.0, 0.0), (0.0, 0.05, 0.0), (0.0, 0.0, 0.05), (0.06, 0.03, 0.04), (0.1, 0.0, 0.0)]


def simulate(rng, student_sd, seed_sd, cell_sd, difference=0.0, runs=RUNS, levels=3):
    """Gaps `[runs, students, seeds, problems]` of answers whose chances differ by student, seed, cell and problem."""

    def moved(sd, *shape):
        return sd * 3**0.5 * rng.uniform(-1, 1, (runs, *shape))

    hard = rng.uniform(0.35, 0.65, (runs, 1, 1, PROBLEMS))
    own = rng.uniform(-0.08, 0.08, (runs, 1, 1, PROBLEMS))
    shift = moved(student_sd, levels, 1, 1) + moved(seed_sd, 1, levels, 1) + moved(cell_sd, levels, levels, 1)
    chances = [hard + sign * (difference + own + shift) / 2 for sign in (1, -1)]
    assert min(c.min() for c in chances) >= 0 and max(c.max() for c in chances) <= 1
    one, other = (rng.random((runs, levels, levels, PROBLEMS)) < c for c in chances)
    return one.astype(float) - other


def means(tables):
    found = [crossed.contrast(table) for table in tables]
    assert all(found)
    return [mean for mean in found if mean]


@pytest.mark.parametrize("world", WORLDS)
def test_intervals_cover(world):
    found = means(simulate(np.random.default_rng(1), *world, difference=0.06))
    covered = np.mean([low <= 0.06 <= high for low, high in (m.interval() for m in found)])
    assert covered >= 0.93


def test_what_three_students_and_seeds_cost_in_width():
    """Two degrees of freedom each: where neither matters, the interval is 2.3 times that of a known spread."""
    found = means(simulate(np.random.default_rng(1), *NOTHING))
    assert np.median([m.half() for m in found]) < 2.5 * 1.96 * np.std([m.mean for m in found])


@pytest.mark.parametrize("world", WORLDS)
def test_verdicts_are_wrong_no_more_often_than_they_say(world):
    rng = np.random.default_rng(2)
    none = means(simulate(rng, *world))
    assert np.mean([m.p < 0.05 for m in none]) <= 0.08
    edge = means(simulate(rng, *world, difference=0.05))
    assert np.mean([m.verdict() is Verdict.EQUIVALENT for m in edge]) <= 0.07


def test_parts_by_hand():
    """Gaps that are student plus seed and nothing else: only these two parts are left, and what two problems add."""
    gaps = np.zeros((2, 2, 40)) + np.array([0.1, -0.1])[:, None, None] + np.array([0.2, 0.0])[None, :, None]
    found = crossed.contrast(gaps)
    assert found and found.mean == pytest.approx(0.1)
    (student, _), (seed, _), (noise, _), (problem, freedom) = found.parts
    share = (40 / 42) ** 2  # two imagined problems dilute the others
    assert student == pytest.approx(share * 0.02 / 2) and seed == pytest.approx(share * 0.02 / 2)
    assert noise == pytest.approx(0, abs=1e-12) and freedom == 39 and problem > 0
    level = 1 - found.p
    assert min(abs(end) for end in found.interval(level)) == pytest.approx(0, abs=1e-6)


def test_verdicts_turn_with_the_data():
    rng = np.random.default_rng(3)
    for difference, verdict in ((0.25, Verdict.AHEAD), (-0.25, Verdict.BEHIND)):
        assert {m.verdict() for m in means(simulate(rng, 0.01, 0.01, 0.01, difference, runs=10))} == {verdict}
    (found,) = means([np.zeros((3, 3, 500))])
    assert found.verdict() is Verdict.EQUIVALENT and found.verdict(margin=0.001) is Verdict.UNDECIDED and found.p == 1
    (wide,) = means(simulate(rng, 0.06, 0.05, 0.05, 0.1, runs=1))
    assert wide.verdict(p=1.0) is Verdict.UNDECIDED


def test_an_arm_can_be_apart_and_within_the_margin():
    sharp, blunt = ((1e-5, 2), (1e-6, 149)), ((1e-2, 2), (1e-3, 149))
    means = {0.0: Verdict.EQUIVALENT, 0.02: Verdict.EQUIVALENT, -0.2: Verdict.BEHIND, 0.2: Verdict.AHEAD}
    assert {mean: Contrast(mean, sharp).verdict() for mean in means} == means
    assert Contrast(0.02, sharp).differs and not Contrast(0.0, sharp).differs
    assert Contrast(0.02, blunt).verdict() is Verdict.UNDECIDED


def test_too_little_to_compare():
    assert crossed.contrast(np.zeros((1, 3, 50))) is None and crossed.contrast(np.zeros(50)) is None
    assert crossed.slope({1: np.zeros((3, 3, 50))}) is None


def test_holm_by_hand():
    def mean(p: float) -> Contrast:
        found = Contrast(Contrast(0, ((1.0, 5),)).half(1 - p), ((1.0, 5),))
        assert found.p == pytest.approx(p)
        return found

    corrected = crossed.holm({"a": mean(0.04), "b": mean(0.01), "c": mean(0.03)})
    assert corrected == pytest.approx({"a": 0.06, "b": 0.03, "c": 0.06}) and list(corrected) == ["a", "b", "c"]


def test_the_slope_of_ranks_that_rise_by_the_same_each_doubling():
    rng = np.random.default_rng(4)
    ranks = (256, 1, 16, 4, 64)
    answers = {rank: (rng.random((3, 3, 400)) < 0.4 + 0.02 * np.log2(rank)).astype(float) for rank in ranks}
    found = crossed.slope(answers)
    assert found and found.interval()[0] < 0.02 < found.interval()[1] and found.half() < 0.01
    flat = crossed.slope({rank: answers[1] for rank in (1, 4, 16)})
    assert flat and flat.mean == pytest.approx(0, abs=1e-12) and flat.p == pytest.approx(1)
