"""Every sentence that depends on data, over made-up runs, as sentences.txt has it: by page, runs and glued name.

    LRD_SENTENCES=write .venv/bin/python -m pytest -n 0 tests/report/test_sentences.py

writes the file anew. Its diff is what changes for a reader.
"""

import json
import math
import os
import re
from collections import ChainMap
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fakes import (
    broken,
    chained,
    change_metrics,
    falling,
    half,
    intervened,
    matrix,
    one_evaluation,
    start_trials,
    swept_rates,
    world,
    write_cell,
    write_lines,
    write_run,
)

from lrd import results
from lrd.analysis import again, budget as budget_numbers, fair, interventions, onset, starts as trials, sweep
from lrd.analysis.again import Reading, Rerun
from lrd.analysis.crossed import Contrast
from lrd.analysis.equivalence import compare
from lrd.analysis.law import capacity, growth
from lrd.analysis.stats import Difference
from lrd.analysis.variants import MOVED, Pair
from lrd.cell import Cell
from lrd.report import (
    answer,
    budget,
    equivalence,
    law,
    method,
    rates,
    repair,
    results as results_report,
    setup,
    stability,
    starts,
    text,
    variants,
    verification,
    yours,
)
from lrd.report.text import NOTHING
from lrd.results import Results

SENTENCES = Path(__file__).with_name("sentences.txt")
Glued = dict[str, str]
WORLDS = {
    "no runs": lambda root: root,
    "half": half,
    "broken": broken,
    "one evaluation": one_evaluation,
    "matrix": matrix,
    "falling": falling,
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A folder of runs each world."""
    root = tmp_path_factory.mktemp("worlds")
    for name, make in WORLDS.items():
        (root / name).mkdir()
        make(root / name)
    return root


def in_each_world(glued: Callable[[Results], Glued]) -> Callable[[Path], Iterable[tuple[str, Glued]]]:
    """A page of one study: what it glues in each world."""
    return lambda runs: [(name, glued(results.load("tiny", runs / name))) for name in WORLDS]


def table(name: str, rows: Iterable[tuple[str, ...]]) -> Glued:
    """The rows of a table in which anything was measured, by the name in the first column."""
    known = [row for row in rows if set(row[1:]) != {NOTHING}]
    return {f"{name} {first or i}": " | ".join(rest) for i, (first, *rest) in enumerate(known)}


def equivalences(found: Results) -> Glued:
    compared = compare(found)
    return (
        equivalence.glued(found, compared)
        | table("design", equivalence.design_rows(compared))
        | table("rank", equivalence.rank_rows(found, compared))
        | dict(ChainMap(*(table(r, equivalence.comparison_rows(found, compared, r)) for r in found.regimes)))
    )


def stabilities(found: Results) -> Glued:
    onsets = onset.onsets(found)
    return (
        stability.glued(found, onsets, onset.lead_lags(found))
        | table("onset", stability.onset_rows(found, onsets))
        | table("order", stability.order_rows(found, onsets))
        | table("sensitivity", stability.sensitivity_rows(found))
    )


def results_page(found: Results) -> Glued:
    compared, events = fair.compared(found, {}), onset.peaks_and_losses(found)
    return (
        results_report.glued(found, compared, events)
        | {f"finding {i}": text for i, text in enumerate(results_report.findings(found, compared))}
        | table("slope", [(f"{m} {r}", *rest) for m, r, *rest in results_report.slope_rows(found, compared)])
        | table("events", results_report.event_rows(found, events))
    )


def readings(runs: Path) -> Iterable[tuple[str, Glued]]:
    """What no made-up run shows."""
    sharp = ((1e-5, 2), (1e-6, 149))
    yield "contrasts", {f"{mean:+.2f}": equivalence.reading(Contrast(mean, sharp), 0.05) for mean in (0, 0.02, -0.02)}
    ranks = [equivalence.between(*pair, (1, 4, 16)) for pair in ((1, 1), (1, 4), (4, 16), (4, math.inf))]
    yield "required ranks", {str(i): words for i, words in enumerate(ranks)}
    differences = {
        "none": None,
        "three seeds": Difference(-0.0004, -0.1234, 0.1, 3),
        "one seed": Difference(0.2, math.nan, math.nan, 1),
        "unbounded": Difference(0.2, -math.inf, math.inf, 3),
    }
    yield "differences", {name: text.difference(d) for name, d in differences.items()}
    yield "numbers", {x: text.scientific(float(x)) for x in ("0", "1e-5", "0.00028")}
    yield "lists", {str(n): text.listed(list("abc")[:n]) for n in range(4)}


def law_page(runs: Path) -> Iterable[tuple[str, Glued]]:
    """Codebooks that were learned in made-up ways."""
    learned, *others = (world(np.random.default_rng(i)) for i in range(3))
    fixed = replace(learned, bits=np.concatenate([m.bits[:, :, :1] for m in (learned, *others)], 2))
    shares = learned.bits / learned.information[:, None]
    shrinking = replace(learned, bits=shares[:, :, ::-1] * learned.information[:, None])
    smaller, larger, around = (replace(learned, parameters=learned.parameters * by) for by in (1 / 3, 10, 0.88))
    broken_arm, few = learned.bits.copy(), replace(learned, bits=learned.bits[:3])
    broken_arm[:, 5, 1:] *= [[[0.8], [0.1]]]
    cases = {
        "growing and not": {"supervised": learned, "outcome": fixed},
        "shrinking": {"supervised": shrinking, "outcome": shrinking},
        "more under the denser": {"supervised": larger, "outcome": learned},
        "less under the denser": {"supervised": smaller, "outcome": learned},
        "on the edge of what was expected": {"supervised": around, "outcome": learned},
        "few replicates": {"supervised": few, "outcome": few},
        "one arm broken": {"supervised": replace(learned, bits=broken_arm / [[[1], [2], [8]]]), "outcome": learned},
    }
    for name, rewards in cases.items():
        yield (
            name,
            {
                "finding": law.finding(rewards),
                "verdict": law.verdict(rewards),
                "at exposures": law.verdict_at_exposures(rewards),
                "stored": law.stored(rewards, (0.65, 1.1)),
                "tested": law.tested(rewards),
                "fallen": law.fallen(rewards),
                "beyond": law.beyond_adapters(rewards),
                "spread": law.spread(rewards),
                "replicates": law.replicates(rewards),
            }
            | table("fit", law.fit_rows(rewards, (capacity, growth)))
            | table("equal bits", law.equal_table(rewards)[1]),
        )


def budget_page(found: Results) -> Glued:
    ours, theirs = budget_numbers.cells(found)[0], budget_numbers.scale("paper")
    verdicts = {f"verdict {regime}": budget.verdict(ours, regime) for regime in found.regimes}
    return budget.glued(ours, theirs, found) | verdicts


CARD = {
    "seconds": 355.4,
    "models": {"student": {"parameters": 23655680}, "teacher": {"parameters": 31522304}, "prm": {"parameters": 206688}},
}


def setups(runs: Path) -> Iterable[tuple[str, Glued]]:
    """Presets with and without a card, and the original's."""
    for preset, card in (("small", CARD), ("tiny", None), ("paper", None)):
        yield f"{preset}, {'with' if card else 'without'} a card", setup.glued(preset, card) | setup.about(preset, card)


RECORD: dict[str, Any] = {  # as lrd.checks.verification leaves it
    "verifier": {
        "problems": 500,
        "math_verify": "0.9.0",
        "bare_lost": ["a", "b", "c"],
        "bare_unparsed": ["b", "c", "d"],
        "boxed_lost": ["a"],
        "next_paid": [],
        "next_pairs": 499,
    },
    "grading": {
        "kinds": {
            "sets": {"right": [1005, 1004, 902], "wrong": [3, 3, 1]},
            "words": {"right": [10, 9, 7], "wrong": [2, 1, 0]},
        }
    },
    "loss": {
        "trl": "1.16.0",
        "batches": 20,
        "aggregations": {
            "token": {"loss": 0.0, "gradient": 0.0, "clipped": 0.149},
            "sequence": {"loss": 0.0, "gradient": 2.5e-7, "clipped": 0.25},
        },
        "other_estimator": 0.002,
    },
    "twice": {"steps": 3, "cells": [{"differing": []}, {"differing": ["evals.jsonl"]}]},
    "forward": {"arms": [{"logps": 0.0, "gradients": 2.5e-7}, {"logps": 1e-8, "gradients": 0.0}]},
    "precision": {
        "learning_rate": 1e-05,
        "std": 0.02,
        "runs": [
            {"master_dtype": "bfloat16", "updates": 1, "moved": 0.2, "distance": 0.5},
            {"master_dtype": "bfloat16", "updates": 50, "moved": 0.25, "distance": 10.0},
            {"master_dtype": "float32", "updates": 1, "moved": 1.0, "distance": 1.0},
            {"master_dtype": "float32", "updates": 50, "moved": 1.0, "distance": 40.0},
        ],
    },
}


def recorded(glued: Callable[[dict[str, Any], Results], Glued]) -> Callable[[Path], Iterable[tuple[str, Glued]]]:
    """A page of the record: in each world, and where nothing differs."""

    def pages(runs: Path) -> Iterable[tuple[str, Glued]]:
        yield from in_each_world(lambda found: glued(RECORD, found))(runs)
        same = {row: values | {"gradient": 0.0} for row, values in RECORD["loss"]["aggregations"].items()}
        exact = RECORD | {"loss": RECORD["loss"] | {"aggregations": same}}
        exact |= {"forward": {"arms": [{"logps": 0.0, "gradients": 0.0}]}}
        yield "no runs, nothing differs", glued(exact, results.load("tiny", runs / "no runs"))

    return pages


def intervention_frames() -> Iterable[tuple[str, pd.DataFrame]]:
    """Cells under intervention: what is shown to lessen what."""
    four, chain = intervened(none=(0.8, 5.0), tame=(0.8, 1.0), good=(0.2, 5.0), both=(0.1, 1.0)), chained()
    full, cap = four["rank"].isna(), chain.intervention == "cap"
    yield "four interventions", four
    yield "no cell", four[:0]
    yield "nothing shown of the loss", four[four.intervention.isin(["none", "tame"])]
    yield "one that ends no higher", four.assign(final=four.final.where(four.intervention != "good", 0.0))
    yield "full fine-tuning holds", four.assign(lost=four.lost.where(~full, 0.0))
    yield "full fine-tuning alone", four[full]
    yield "a chain", chain
    yield (
        "one that saves nothing",
        chain[cap | (chain.intervention == "none")].assign(lost=0.8 + 0.1 * chain.seed * cap),
    )
    yield "one that moves two links", chain.assign(length=20.0 + cap * (5 + 0.1 * chain.seed))
    yield "nothing is lost", chain.assign(lost=0.0)


def collapse_page(runs: Path) -> Iterable[tuple[str, Glued]]:
    """The page on interventions, and every rank under one repair on another testbed."""
    for case, frame in intervention_frames():
        glued = {
            "finding": repair.finding(frame),
            "verdict": repair.verdict(frame),
            "adapters": repair.of_adapters(frame),
            "held": repair.held(frame),
        }
        glued |= {"links": repair.links(frame)}
        if case in ("four interventions", "a chain"):
            for tabled in (repair.values, repair.effects, repair.shares, repair.arms):
                head, rows = tabled(frame)
                glued |= {f"{tabled.__name__} head": " | ".join(head)} | table(tabled.__name__, rows)
        yield case, glued
    for training in "123":
        for rank in (1, 256, None):
            for seed in range(3):
                rises = {1: 18, 256: 17}.get(rank or 0, 9)  # of 20
                for preset, right in {"fair": (12 + seed, 2), "fair-intervention": (rises, rises)}.items():
                    cell = Cell.load(preset, regime="process", rank=rank, seed=seed, training=training)
                    path = write_cell(runs / "ranks", cell, {0: 5, 20: right[0], 40: right[1]})
                    rows = [{"step": step, "problem": "v", "correct": step == 20} for step in (0, 20, 40)]
                    write_lines(path / "validation.jsonl", rows)
    for case in ("ranks", "no runs"):
        plain, repaired = (results.load(preset, runs / case) for preset in ("fair", "fair-intervention"))
        glued = {"every rank": repair.of_ranks(repaired), "change": repair.of_repair(plain, repaired)}
        glued |= {"every rank held": repair.held(interventions.side_by_side(plain, repaired))}
        head, rows = repair.side_by_side(plain, repaired)
        yield case, glued | {"side by side head": " | ".join(head)} | table("side by side", rows)


def learning_rates_page(runs: Path) -> Iterable[tuple[str, Glued]]:
    """A sweep that one arm's rate in the matrix is not from, one student of it, and none."""
    curves = swept_rates()
    for case, rows in {"swept": curves, "one": curves[curves.training == "1"], "none": curves[:0]}.items():
        cells = sweep.cells_of("fair-lr", rows)
        glued = {"verdict": rates.verdict(cells), "use": rates.in_use("fair", cells), "ratio": rates.ratio(cells)}
        glued |= {"one student": rates.one_student(cells), "seeds": rates.seeds("fair-lr")}
        yield case, glued | table("area", rates.rows(cells)) | table("student", rates.student_rows(cells))


def varied_settings_page(runs: Path) -> Iterable[tuple[str, Glued]]:
    """Three seeds of which weights are known to have moved, one seed, no pair, and nothing."""
    for seed, right in enumerate([15, 16, 17]):
        for dtype, n, moved in (("float32", right, 0.99), ("bfloat16", 10, 0.1 + 0.01 * seed)):
            path = write_cell(
                runs / "three seeds", Cell.load("small-bf16", master_dtype=dtype, seed=seed), {0: 5, 10: n}
            )
            change_metrics(path, lambda row, moved=moved: {MOVED: moved * row["step"] / 10})
    for engine in ("torch", "vllm"):
        write_cell(runs / "one seed", Cell.load("small-engine", engine=engine, seed=0), {0: 5, 10: 15})
    for seed, dtype in enumerate(("float32", "bfloat16")):
        write_cell(runs / "no pair", Cell.load("small-bf16", master_dtype=dtype, seed=seed), {0: 5, 10: 15})
    presets = {
        "three seeds": "small-bf16",
        "one seed": "small-engine",
        "no pair": "small-bf16",
        "no runs": "small-bf16",
    }
    for case, preset in presets.items():
        pair = Pair(results.load(preset, runs / case))
        head, rows = variants.table(pair)
        yield case, {"verdict": variants.verdict(pair), "table": ", ".join(head)} | table("seed", rows)


def reruns_page(runs: Path) -> Iterable[tuple[str, Glued]]:
    """Runs beside published ones: the same, other numbers, other versions, other models, and none of either."""
    numbers = {"base": 0.25, "final": 0.75, "peak": 0.75, "area": 0.5, "peak_advantage_std": 10.0}
    kept = {"cells": {f"outcome-r{rank}-s0": numbers for rank in (1, 4)}, "environment": {"torch": ["2.13.0"]}}
    cases = {"the same": (15, "2.13.0", {}, kept), "others": (16, "2.13.0", {}, kept)}
    cases |= {"a version": (16, "2.14.0", {}, kept), "models": (16, "2.13.0", {"student": "s1"}, kept)}
    for case, (right, torch, models, published) in (cases | {"unpublished": (15, "2.13.0", {}, {})}).items():
        for rank in (1, 4):
            path = write_run(runs / case, "outcome", rank, 0, {0: 5, 10: 15 if rank == 1 else right})
            record = {"packages": {"torch": torch}, "run": {"models": models}}
            (path / "provenance.json").write_text(json.dumps(record))
        yield case, rerun(again.Comparison(results.load("tiny", runs / case), published, runs / case))
    yield "no runs", rerun(again.Comparison(results.load("tiny", runs / "no runs"), kept, runs / "no runs"))
    twice = results.load("small-again", runs / "no runs")
    (first, second, third, *_), states = twice.cells.cell, ("finished", "finished")
    each = [
        Rerun(first, states, (0.75, 0.8), 6, 0.05, Reading.WITHIN),
        Rerun(second, states, (0.75, 0.5), 0, 0.25, Reading.APART),
        Rerun(third, ("finished", "absent")),
    ]
    yield "twice", table("cell", yours.rerun_rows(twice, each))


def rerun(compared: again.Comparison) -> Glued:
    rows = [row for row in yours.rows(compared) if row[-1] != "absent"]
    rows = [(row[0].split(">")[-2].split("<")[0] if "<" in row[0] else row[0], *row[1:]) for row in rows]
    return (
        yours.glued(compared)
        | table("cell", rows)
        | table("regime", yours.regimes(compared))
        | table("rests on", yours.differing(compared))
    )


def starts_page(runs: Path) -> Iterable[tuple[str, Glued]]:
    """Trials of supervised starts: all of them gain, none has run."""
    start_trials(runs / "trials")
    card = {
        "models": {"a/student": {"habits": {"direct": [0.1, 0.8]}, "pass@8": 0.25}},
        "train": {"adapter": 8, "steps": 9},
    }
    for case, of in (("trials", card), ("no runs", None)):
        found = results.load("smollm-starts", runs / case)
        frame = trials.table(found)
        glued = starts.glued(found, frame, of)
        yield case, glued | table("try", starts.tried(found, of)) | table("expected", starts.expected(frame))


# page → from the worlds' runs to (case, what the page glues); add a page here
PAGES: dict[str, Callable[[Path], Iterable[tuple[str, Glued]]]] = {
    "answer": in_each_world(lambda found: answer.glued(found) | table("reward", answer.rows(found))),
    "budget": in_each_world(budget_page),
    "equivalence": in_each_world(equivalences),
    "law": law_page,
    "stability": in_each_world(stabilities),
    "results": in_each_world(results_page),
    "setup": setups,
    "by hand": readings,
    "method": recorded(method.glued),
    "verification": recorded(verification.glued),
    "repair": collapse_page,
    "rates": learning_rates_page,
    "starts": starts_page,
    "variants": varied_settings_page,
    "yours": reruns_page,
}


@pytest.mark.parametrize("page", PAGES)
def test_sentences(page, runs, monkeypatch):
    monkeypatch.setenv("LRD_RUNS", str(runs / "no runs"))
    shown = "".join(
        f"\n--- {case}\n" + "".join(f"{name}: {sentence}\n" for name, sentence in glued.items())
        for case, glued in PAGES[page](runs)
    )
    assert not re.search(r"\bnan\b|\binf\b|\bNone\b", shown)
    known = sections()
    if os.environ.get("LRD_SENTENCES") == "write":
        known[page] = shown
        SENTENCES.write_text("\n".join(f"=== {name}\n{known[name]}" for name in PAGES if name in known), "utf-8")
    assert shown.splitlines() == known[page].splitlines()


def sections() -> dict[str, str]:
    """What the file says of each page."""
    text = SENTENCES.read_text("utf-8") if SENTENCES.exists() else ""
    parts = re.split(r"^=== (.*)\n", text, flags=re.M)[1:]
    return {name: body.rstrip("\n") + "\n" for name, body in zip(parts[::2], parts[1::2])}
