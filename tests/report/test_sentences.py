"""Every sentence that depends on data, over made-up runs, as sentences.txt has it: by page, runs and glued name.

    LRD_SENTENCES=write .venv/bin/python -m pytest -n 0 tests/report/test_sentences.py

writes the file anew. Its diff is what changes for a reader.
"""

import math
import os
import re
from collections import ChainMap
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from fakes import broken, falling, half, matrix, one_evaluation

from lrd import results
from lrd.analysis import onset
from lrd.analysis.crossed import Contrast
from lrd.analysis.equivalence import compare
from lrd.analysis.stats import Difference
from lrd.report import answer, equivalence, method, setup, stability, text, verification
from lrd.report.results import glued as results_page
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


# page → from the worlds' runs to (case, what the page glues); add a page here
PAGES: dict[str, Callable[[Path], Iterable[tuple[str, Glued]]]] = {
    "answer": in_each_world(lambda found: answer.glued(found) | table("reward", answer.answers(found))),
    "equivalence": in_each_world(equivalences),
    "stability": in_each_world(stabilities),
    "results": in_each_world(results_page),
    "setup": setups,
    "by hand": readings,
    "method": recorded(method.glued),
    "verification": recorded(verification.glued),
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
