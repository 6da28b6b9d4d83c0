"""Which cells a preset has, and what of them can be refused before anything starts. Torch is imported where needed."""

import contextlib
import dataclasses
import functools
from typing import Any

from lrd.cell import Cell, grid
from lrd.data import hub, problems
from lrd.presets import read_preset
from lrd.runs.directory import Run, check_root, notebook_ended
from lrd.runs.files import Unreadable
from lrd.train import tracking


def cells(preset: str) -> list[Cell]:
    """The matrix of a preset, in a stable order."""
    return grid(preset)


def check(cells: list[Cell], runs: str | None = None, other_code: bool = False) -> list[Run]:
    """Raises `UserError` for what this host can refuse before anything starts: run directories, models, problems.

    Returns those that are finished, their notebooks whole: there is nothing to run. A finished cell needs no models.
    """
    tracking.chosen()
    finished = {}
    for cell in cells:
        with contextlib.suppress(Unreadable):  # that cell fails by itself and stops no other
            run = Run(cell, runs, hold=False, other_code=other_code)
            run.check()
            finished |= {cell: run} if run.finished else {}
    if todo := [cell for cell in cells if cell not in finished]:
        check_root(runs)
        check_inputs(todo)
    return [run for run in finished.values() if notebook_ended(run.path)]


def check_inputs(cells: list[Cell]) -> None:
    """Raises `UserError` where models or problems of the cells cannot work; what needs no torch comes first."""
    train_pool, evaluations = functools.cache(problems.train_pool), functools.cache(problems.asked)
    for cell in cells:
        hub.fetch_inputs(cell)
        train_pool(cell.train_data, cell.prompts_per_step)
        evaluations(cell.eval_data, cell.eval_problems, cell.validation_problems)
    from lrd import rewards, sampling
    from lrd.models import loading, placement
    from lrd.train import inputs

    for cell in cells:
        sampling.check(cell)
        if role := rewards.model_of(cell):
            hub.model_folder(getattr(cell, role.lower()), role, weights=False)
    for cell in {(cell.student, cell.lora_targets, cell.lora_layers): cell for cell in cells if cell.rank}.values():
        placement.check(cell)
    load_tokenizer = functools.cache(loading.load_tokenizer)
    # Adapters and how they are trained play no part.
    alike: dict[str, Any] = {"rank": 1, "seed": 0, "learning_rate": 0.0, "lora_targets": ("",), "lora_layers": ()}
    for cell in dict.fromkeys(dataclasses.replace(cell, **alike) for cell in cells):
        pool, _ = train_pool(cell.train_data, cell.prompts_per_step)
        asked = evaluations(cell.eval_data, cell.eval_problems, cell.validation_problems)
        every = [problem for each in asked for problem in each.problems]
        inputs.check(cell, load_tokenizer(cell.student, "student"), pool, every)


def check_study(name: str, preset: str, overrides: dict[str, Any]) -> None:
    """Raises `UserError` for what the notebook cannot work with: `rewards` tries all regimes, `baseline` no PRM."""
    if name == "rewards":
        check_inputs(list({cell.regime: cell for cell in grid(preset, **overrides)}.values()))
    else:
        cell = grid(preset, **read_preset(preset).get("baseline", {}) | overrides)[0]
        hub.fetch_inputs(cell)
        hub.model_folder(cell.teacher, "teacher", weights=False)
        problems.held_out(cell.eval_data, cell.eval_problems)
