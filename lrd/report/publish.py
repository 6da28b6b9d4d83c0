"""What the book keeps of a preset beside its runs: `lrd publish PRESET` writes runs/published/, which is committed.

The record holds what is lost with models that are too large for git (their card, their shapes, their fingerprints),
what the runs ran on, and a line of numbers a cell, so that a reader's own runs of the preset can be set beside them. Of
grids that are too large for all of their runs to be committed, a table holds what the pages need of each cell: the bits
of a codebook, or the validation curve of a sweep.
"""

import dataclasses
from pathlib import Path

import pandas as pd

from lrd import ROOT, UserError, results
from lrd.analysis import budget, codebooks, sweep
from lrd.analysis.again import NUMBERS, ROLES, environment
from lrd.cell import grid
from lrd.presets import read_preset
from lrd.results import Results
from lrd.runs import published
from lrd.runs.files import read_json
from lrd.runs.provenance import fingerprint


def write(preset: str, runs: str | Path | None = None) -> Path:
    """Writes the record of a preset's runs and returns its path.

    Raises `UserError` where no cell is finished, or where the models that they began from are not those at hand.
    """
    found = results.load(preset, runs)
    if not len(found.finished):
        raise UserError(f"preset {preset!r} has no finished cell to publish")
    rests_on = environment(results.read_provenance(results.root(runs) / preset / cell) for cell in found.finished.cell)
    models = {role: dict.fromkeys(getattr(cell, role) for cell in grid(preset)) for role in ROLES}
    for role, names in models.items():
        there = {name: fingerprint(name) or "not there" for name in names}
        if not (began := set(rests_on.get(role, ["unknown"]))) <= set(there.values()):
            raise UserError(
                f"the cells of {preset!r} began from {role} {' and '.join(sorted(began))}, and "
                f"{', '.join(f'{name} is {here}' for name, here in there.items())}; publish where they were trained"
            )
    names = dict.fromkeys(name for names in models.values() for name in names)
    shapes = {name: dataclasses.asdict(shape) for name in names if (shape := budget.shape_of(name))}
    cells = found.finished.set_index("cell")[NUMBERS].astype(float).to_dict("index")
    card = read_json(ROOT / "models" / preset / "card.json")
    record = {"environment": rests_on, "card": card, "shapes": shapes, "cells": cells}
    return published.write(preset, record, _rows(found, runs))


def _rows(found: Results, runs: str | Path | None) -> pd.DataFrame | None:
    """The table of a large grid; None for any other preset."""
    if sweep.of(read_preset(found.preset).get("base", "")) == found.preset:
        return sweep.curves(found.preset, runs)
    bits = codebooks.learned(found).drop(columns="exposures")
    return bits if len(bits) else None
