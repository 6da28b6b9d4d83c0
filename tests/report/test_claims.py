"""Every verdict of the claims table, and of what was expected, turns with the runs that it rests on."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from fakes import intervened, outcome, plant, swept_rates, world, write_cell

from lrd import results
from lrd.analysis import headline, sweep
from lrd.analysis.variants import Pair
from lrd.cell import Cell, grid
from lrd.presets import read_preset
from lrd.report import claims, expected
from lrd.runs import published

SHOWN, UNDECIDED, CONTRADICTED = "shown", "undecided", "contradicted"


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.setenv("LRD_RUNS", str(tmp_path))


def noisy(cell):
    """Above full fine-tuning with one training of the student, below with another."""
    return 10 + {"1": 6, "2": -6, "3": 0}[cell.point["training"]] if cell.rank else 10


@pytest.mark.parametrize(
    ("right", "enough", "flat", "ahead"),
    [
        (lambda cell: 16 if cell.rank else 8, SHOWN, SHOWN, SHOWN),
        (lambda cell: 6 if cell.rank else 15, CONTRADICTED, SHOWN, CONTRADICTED),
        (lambda cell: (cell.rank or 512).bit_length() * 2, CONTRADICTED, CONTRADICTED, CONTRADICTED),
        (noisy, UNDECIDED, SHOWN, UNDECIDED),
    ],
)
def test_claims_of_ranks_turn(tmp_path, right, enough, flat, ahead):
    found = plant(tmp_path, right, problems=100)
    lines = [outcome(found)]
    made = [claims.enough(found, lines), claims.flat(found, lines), claims.ahead(found, lines)]
    assert [claim.verdict for claim in made] == [enough, flat, ahead]
    rows = expected.fair(found, lines, swept())
    assert [word for _, word, _ in rows[:2]] == [
        {SHOWN: "came true", CONTRADICTED: "did not come true", UNDECIDED: UNDECIDED}[verdict]
        for verdict in (enough, flat)
    ]


def test_nothing_is_claimed_of_no_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(published, "FOLDER", tmp_path / "published")
    found = results.load("fair")
    lines = headline.lines(found)
    made = claims.claims(found, results.load("small"), lines)
    assert {claim.verdict for claim in made} == {"not measured"}
    assert {word for _, word, _ in expected.fair(found, lines, swept()[:0])} == {"not measured"}


def swept():
    return sweep.cells_of("fair-lr", swept_rates())


def shrinking(m):
    """Codebooks of more bits that smaller adapters learn whole: every curve with its codebooks turned about."""
    return replace(m, bits=m.bits[:, :, ::-1] / m.information[::-1, None] * m.information[:, None])


def test_claims_of_capacity_turn():
    grows = world(np.random.default_rng(0))
    smaller, larger = (replace(grows, parameters=grows.parameters * by) for by in (1 / 3, 10))
    flat = replace(grows, bits=grows.bits[:, :, :1] / grows.information[0] * grows.information[:, None])
    for m, verdict in ((grows, SHOWN), (shrinking(grows), CONTRADICTED), (flat, UNDECIDED)):
        assert claims.room([({"supervised": m}, "step")]).verdict == verdict
    for dense, verdict in ((larger, SHOWN), (smaller, CONTRADICTED), (grows, UNDECIDED)):
        assert claims.denser([({"supervised": dense, "outcome": grows}, "step")]).verdict == verdict
    assert claims.room([]).verdict == claims.denser([]).verdict == "not measured"


@pytest.mark.parametrize(("before", "now", "verdict"), [(9, 0, SHOWN), (0, 9, CONTRADICTED), (9, 9, UNDECIDED)])
def test_the_claim_of_the_collapse_turns(tmp_path, before, now, verdict):
    loaded = []
    for preset, fallen in (("small", before), ("fair", now)):
        for i, cell in enumerate(grid(preset, {"regime": ["process"], "rank": [1, 4]})[:9]):
            write_cell(tmp_path, cell, {0: 4, 10: 16, 20: 2, 30: 1} if i < fallen else {0: 4, 10: 16, 20: 16, 30: 16})
        loaded.append(results.load(preset, tmp_path))
    claim = claims.collapse(loaded[1], loaded[0])
    assert claim.verdict == verdict
    assert claim.evidence == f"Adapters that collapse: {before} of 9 at 0.001, {now} of 9 at 0.0001."


@pytest.mark.parametrize(
    ("half", "verdict", "came"),
    [(6, SHOWN, "came true"), (18, CONTRADICTED, "did not come true"), (12, UNDECIDED, UNDECIDED)],
)
def test_the_claim_of_bf16_turns(tmp_path, half, verdict, came):
    for seed in range(3):
        for dtype, right in (("float32", 12 + seed % 2), ("bfloat16", half + (seed + 1) % 2)):
            write_cell(tmp_path, Cell.load("small-bf16", master_dtype=dtype, seed=seed), {0: 4, 10: right})
    pair = Pair(results.load("small-bf16", tmp_path))
    assert claims.precision(pair).verdict == verdict
    assert [word for _, word, _ in expected.bf16(pair)] == ["not measured", came]


def test_expectations_of_the_sweep_turn():
    cells = swept()
    words = {clause: word for clause, word, _ in expected.fair_lr(cells)}
    assert set(words.values()) <= {"came true", "did not come true", UNDECIDED}
    slower = cells.assign(**{sweep.AXIS: cells[sweep.AXIS].where(cells.arm != "full", cells[sweep.AXIS] * 100)})
    assert expected.fair_lr(slower)[0][1] != "came true"


def test_expectations_of_interventions_turn():
    frame = intervened(none=(0.8, 5.0), cap=(0.8, 1.0), whitened=(0.8, 1.0), outcome=(0.1, 5.0))
    frame = pd.concat([frame, frame[frame.intervention == "cap"].assign(intervention="mean-to-go")])
    frame = pd.concat([frame, frame[frame.intervention == "outcome"].assign(intervention="canonical-minimum")])
    assert [word for _, word, _ in expected.repair(frame)] == ["came true", "not contradicted", "came true"]
    assert "it has not happened" in expected.changed(frame)
    kept = frame.assign(lost=frame.lost.where(frame.intervention != "cap", 0.1))
    assert [word for _, word, _ in expected.repair(kept)] == ["came true", "did not come true", "did not come true"]
    assert expected.changed(kept).startswith("It has happened, with cap.")
    assert {word for _, word, _ in expected.repair(frame[:0])} == {"not measured"}


def test_expectations_of_capacity_turn():
    grows = world(np.random.default_rng(0))
    base = {"supervised": grows, "outcome": grows}
    assert [word for _, word, _ in expected.base_law(base)] == ["came true", "came true", "not contradicted"]
    other = {"supervised": replace(grows, parameters=grows.parameters / 3), "outcome": shrinking(grows)}
    assert [word for _, word, _ in expected.base_law(other)] == ["did not come true"] * 3
    assert expected.larger(base)[1][1] == "not contradicted"
    more = {"supervised": replace(grows, parameters=grows.parameters * 10), "outcome": grows}
    assert expected.larger(more)[1][1] == "did not come true"
    assert {word for _, word, _ in expected.between(base, base)[:1]} == {"came true"}
    assert expected.longer(base, base)[2][1] == "did not come true"


CLAUSES = {
    "fair": lambda: expected.fair(results.load("fair"), [], swept()[:0]),
    "fair-lr": lambda: expected.fair_lr(swept()[:0]),
    "fair-intervention": lambda: expected.intervened(results.load("fair-intervention"), []),
    "fair-intervention-lr": lambda: expected.intervened_rates(swept()[:0], swept()[:0]),
    "small-bf16": lambda: expected.bf16(Pair(results.load("small-bf16"))),
    "small-engine": lambda: expected.engine(Pair(results.load("small-engine"))),
    "law": lambda: expected.base_law({}),
    "law-long": lambda: expected.longer({}, {}),
    "law-ranks": lambda: expected.between({}, {}),
    "law-small": lambda: expected.larger({}),
    "repair": lambda: expected.repair(intervened(none=(0.8, 5.0))[:0]),
}


@pytest.mark.parametrize("preset", CLAUSES)
def test_each_clause_is_a_piece_of_its_presets_prediction(preset):
    prediction = read_preset(preset)["about"]["prediction"]
    rows = CLAUSES[preset]()
    assert rows and all(clause in prediction for clause, _, _ in rows)
    assert {word for _, word, _ in rows} == {"not measured"}


def test_a_clause_from_within_a_sentence_says_so():
    shown = str(expected.table([("Repairs help", expected.TRUE, ""), ("pass@1 is lost", expected.FALSE, "")]))
    assert ">Repairs help<" in shown and ">… pass@1 is lost<" in shown
