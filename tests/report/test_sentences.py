"""Every sentence that depends on data, over made-up runs, as sentences.txt has it: by page, runs and glued name.

    LRD_SENTENCES=write .venv/bin/python -m pytest -n 0 tests/report/test_sentences.py

writes the file anew. Its diff is what changes for a reader.
"""

import os
import re
from collections import ChainMap
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from fakes import broken, falling, half, matrix, one_evaluation

from lrd import results
from lrd.report import answer, evidence, setup
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


def equivalence(found: Results) -> Glued:
    page = evidence.Equivalence(found)
    comparisons = [table(regime, page.comparisons(regime)) for regime in found.regimes]
    return page.facts() | table("design", page.designs()) | table("rank", page.ranks()) | dict(ChainMap(*comparisons))


def stability(found: Results) -> Glued:
    page = evidence.Stability(found)
    return (
        page.facts()
        | table("onset", page.onset_rows())
        | table("order", page.order_rows())
        | table("sensitivity", page.sensitivity_rows())
    )


CARD = {
    "seconds": 355.4,
    "models": {"student": {"parameters": 23655680}, "teacher": {"parameters": 31522304}, "prm": {"parameters": 206688}},
}


def setups(runs: Path) -> Iterable[tuple[str, Glued]]:
    """Presets with and without a card, and the original's."""
    for preset, card in (("small", CARD), ("tiny", None), ("paper", None)):
        yield f"{preset}, {'with' if card else 'without'} a card", setup.glued(preset, card) | setup.about(preset, card)


# page → from the worlds' runs to (case, what the page glues); add a page here
PAGES: dict[str, Callable[[Path], Iterable[tuple[str, Glued]]]] = {
    "answer": in_each_world(lambda found: answer.glued(found) | table("reward", answer.answers(found))),
    "equivalence": in_each_world(equivalence),
    "stability": in_each_world(stability),
    "results": in_each_world(results_page),
    "setup": setups,
}


@pytest.mark.parametrize("page", PAGES)
def test_sentences(page, runs, monkeypatch):
    monkeypatch.setenv("LRD_RUNS", str(runs / "no runs"))
    text = "".join(
        f"\n--- {case}\n" + "".join(f"{name}: {sentence}\n" for name, sentence in glued.items())
        for case, glued in PAGES[page](runs)
    )
    assert not re.search(r"\bnan\b|\binf\b|\bNone\b", text)
    known = sections()
    if os.environ.get("LRD_SENTENCES") == "write":
        known[page] = text
        SENTENCES.write_text("\n".join(f"=== {name}\n{known[name]}" for name in PAGES if name in known), "utf-8")
    assert text.splitlines() == known[page].splitlines()


def sections() -> dict[str, str]:
    """What the file says of each page."""
    text = SENTENCES.read_text("utf-8") if SENTENCES.exists() else ""
    parts = re.split(r"^=== (.*)\n", text, flags=re.M)[1:]
    return {name: body.rstrip("\n") + "\n" for name, body in zip(parts[::2], parts[1::2])}
