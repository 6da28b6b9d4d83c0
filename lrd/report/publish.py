"""What the book keeps of a preset beside its runs: `lrd publish PRESET` writes runs/published/, which is committed.

The record holds what is lost with models that are too large for git (their card, their shapes, their fingerprints),
what the runs ran on, and a line of numbers a cell, so that a reader's own runs of the preset can be set beside them. Of
cells that learn a codebook a table holds the bits: they are too many for all of their runs to be committed.
"""

# pandas types a selection as any of Series, DataFrame and ndarray:
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false, reportCallIssue=false

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lrd import ROOT, UserError, results
from lrd.analysis import budget, law
from lrd.cell import grid
from lrd.runs import published
from lrd.runs.files import read_json
from lrd.runs.provenance import fingerprint

NUMBERS = ["base", "final", "peak", "area", "peak_advantage_std"]  # of a cell, as `results.summary` has them
ROLES = ["student", "teacher", "prm"]
PACKAGES = ["torch", "transformers", "tokenizers", "peft", "numpy"]  # those whose arithmetic or tokens may differ


def write(preset: str, runs: str | Path | None = None) -> Path:
    """Writes the record of a preset's runs and returns its path.

    Raises `UserError` where no cell is finished, or where the models that they began from are not those at hand.
    """
    found = results.load(preset, runs)
    if not len(found.finished):
        raise UserError(f"preset {preset!r} has no finished cell to publish")
    environment = ran_on(results.read_provenance(results.root(runs) / preset / cell) for cell in found.finished.cell)
    models = {role: dict.fromkeys(getattr(cell, role) for cell in grid(preset)) for role in ROLES}
    for role, names in models.items():
        there = {name: fingerprint(name) or "not there" for name in names}
        if not (began := set(environment.get(role, ["unknown"]))) <= set(there.values()):
            raise UserError(
                f"the cells of {preset!r} began from {role} {' and '.join(sorted(began))}, and "
                f"{', '.join(f'{name} is {here}' for name, here in there.items())}; publish where they were trained"
            )
    names = dict.fromkeys(name for names in models.values() for name in names)
    shapes = {name: dataclasses.asdict(shape) for name in names if (shape := budget.shape_of(name))}
    cells = found.finished.set_index("cell")[NUMBERS].astype(float).to_dict("index")
    card = read_json(ROOT / "models" / preset / "card.json")
    record = {"environment": environment, "card": card, "shapes": shapes, "cells": cells}
    bits = law.table(found).drop(columns="looks")
    return published.write(preset, record, bits if len(bits) else None)


def ran_on(records: Iterable[dict[str, Any]]) -> dict[str, list[str]]:
    """What a set of runs rests on, from their provenances: name → its distinct values, in the order of the runs."""
    found: dict[str, dict[str, None]] = {}
    for record in records:
        run, hardware, packages, git = (
            part if isinstance(part := record.get(name), dict) else {}
            for name in ("run", "hardware", "packages", "git")
        )
        models = run.get("models")
        values = {role: models.get(role) for role in ROLES} if isinstance(models, dict) else {}
        values |= {"python": record.get("python")} | {name: packages.get(name) for name in PACKAGES}
        values |= {"commit": git.get("sha"), "processor": hardware.get("cpu"), "device": run.get("device")}
        values |= {"GPUs": ", ".join(map(str, hardware.get("gpus") or [])), "threads": run.get("threads")}
        for name, value in values.items():
            if value not in (None, ""):
                found.setdefault(name, {})[str(value)] = None
    return {name: list(values) for name, values in found.items()}
