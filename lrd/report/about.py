"""What the reported models are and are not, as sentences made of configurations and cards."""

import tomllib
from typing import Any

from lrd import ROOT, results
from lrd.analysis import budget
from lrd.cell import Cell, grid, is_path
from lrd.report.text import counted, listed
from lrd.results import Results

ROLES, OTHERS = ("student", "teacher", "prm"), ("the teacher", "the process reward model")
TASKS = {
    "chain": "chains of one-digit arithmetic modulo ten",
    "arithmetic": "arithmetic told as short stories, of five levels of difficulty",
}
ORIGINAL = "paper"  # the preset of the original's models


def facts(found: Results) -> dict[str, str]:
    """Keyed by the names that they are glued under."""
    cell, card = grid(found.preset)[0], results.card(found.preset)
    return {"models": models(found.preset, cell, card), "scale": scale(found.preset, cell, card)}


def models(preset: str, cell: Cell, card: dict[str, Any] | None = None) -> str:
    """Where the models come from and how large they are."""
    card = card or results.card(preset)
    if not is_path(cell.student):
        return f"The models are the original's: {listed([cell.student, cell.teacher, cell.prm])}."
    if card is None:
        return f"The models of {preset} are trained from scratch on {task(cell)}; their card is not at hand."
    student, *others = (size(card["models"][role]["parameters"]) for role in ROLES)
    rest = listed([f"{name} {n}" for name, n in zip(OTHERS, others)])
    return (
        f"The student has {student} parameters, {rest}. All three are trained from scratch, in "
        f"{card['seconds'] / 60:.0f} minutes, on problems that a program writes: {task(cell)}."
    )


def scale(preset: str, cell: Cell, card: dict[str, Any] | None = None) -> str:
    """What that scale leaves out; empty where the models are the original's."""
    if not is_path(cell.student):
        return ""
    theirs = budget.shape_of(grid(ORIGINAL)[0].student)
    ours = ((card or results.card(preset) or {}).get("models", {}).get("student", {})).get("parameters")
    times = ""
    if theirs and ours:
        factor = float(f"{theirs.parameters / ours:.2g}")
        times = f"; the original's student has about {factor:,.0f} times as many parameters"
    return (
        f"They have never read a text of any other kind: they are no language models, and what holds of them need not "
        f"hold of one{times}."
    )


def task(cell: Cell) -> str:
    """The cell's train problems, in words."""
    return TASKS.get(cell.train_data, cell.train_data)


def size(parameters: float) -> str:
    """`23.7 million`, `206,688`."""
    return f"{parameters / 1e6:.1f} million" if parameters >= 1e6 else f"{parameters:,.0f}"


def tried(preset: str) -> list[tuple[str, str, str]]:
    """What was tried for a testbed and rejected: the change, what came of it and why it was not kept."""
    entries = tomllib.loads((ROOT / "book" / "tried.toml").read_text(encoding="utf-8")).get(preset, [])
    return [(entry["change"], _scores(entry), entry["reason"]) for entry in entries]


def tried_of(preset: str) -> str:
    """How many recipes are on record as rejected, in one sentence."""
    n = len(tried(preset))
    if not n:
        return f"Of preset {preset} no rejected recipe is on record."
    return f"On record for preset {preset}: {counted(n, 'recipe')} that {'was' if n == 1 else 'were'} rejected."


def _scores(entry: dict[str, Any]) -> str:
    found = [f"{name} {entry[name]:.3f}" for name in ("greedy", "sampled") if name in entry]
    return ", ".join(found) or "not measured"
