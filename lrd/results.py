"""Runs as tidy frames: what the book and the cell's own notebook read. Torch-free, and it never raises on a bad run.

What is missing or unreadable is named in `Results.problems` instead, so that no page shows a gap without saying so.
"""

# pandas types a selection as any of Series, DataFrame and ndarray:
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false, reportCallIssue=false

import contextlib
import functools
import hashlib
import io
import itertools
import json
import lzma
import math
import os
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.json

from lrd import ROOT, UserError
from lrd.cell import Cell, grid, path_safe, with_defaults
from lrd.names import runs_root
from lrd.presets import DEFAULT, further_axes, preset_names, read_preset
from lrd.runs.directory import off_grid, reason, state
from lrd.runs.files import parsed_lines, read_json, read_jsonl, read_log, write_json
from lrd.runs.published import record
from lrd.sources import held_out_sets

PUBLISHED = "fair"  # the preset whose runs are committed and that the book reports, once there are some
KEYS = ["regime", "arm", "seed"]
STEP_COLUMNS = ["step", "advantage_std", "step_time"]
FRAMES = ("steps", "evals", "cells", "further")
PLAIN = {"int64", "double", "bool", "string"}  # types of Arrow that a frame shows as Python's
EVAL_COLUMNS = ["step", "problem", "correct", "answered", "length", "truncated"]


@dataclass(frozen=True)
class Results:
    """All that a preset's runs hold.

    `steps`: one row a training step (the metrics of `metrics.jsonl`). `evals`: one row an evaluated problem. `cells`:
    one row a cell of the matrix, finished or not. All carry `regime`, `arm`, `seed`, `cell` and a column for each of
    `axes`, the matrix's further ones. `problems`: what is missing or unreadable, one sentence each, led by the cell's
    name. `further`: one row a problem of the held-out sets beyond the first, which `set` names; of each, `cells` has
    `final NAME` and so on. `off_grid`: the same of cells that were asked for by hand, with another seed or rank than
    the matrix has (`lrd cell PRESET --seed 3`); None where there are none. The book reports the matrix alone.
    """

    preset: str
    steps: pd.DataFrame
    evals: pd.DataFrame
    cells: pd.DataFrame
    problems: list[str]
    axes: list[str] = field(default_factory=list)
    further: pd.DataFrame = field(default_factory=pd.DataFrame)
    off_grid: "Results | None" = None

    @cached_property
    def finished(self) -> pd.DataFrame:
        """The rows of `cells` that are finished and evaluated: what statistics are made of."""
        return self.cells[(self.cells.state == "finished") & self.cells.final.notna()]

    @cached_property
    def curves(self) -> pd.DataFrame:
        """One row an evaluation: pass@1 of a cell at a step, with the share answered and truncated, and the score."""
        keys, values = ["cell", *KEYS, *self.axes, "step"], ["correct", "answered", "truncated", "length"]
        values += ["score"] if "score" in self.evals else []
        means = self.evals.groupby(keys, as_index=False, sort=False)[values].mean()
        return means.rename(columns={"correct": "pass@1"})

    @property
    def regimes(self) -> list[str]:
        """The matrix's regimes, in its own order."""
        return list(dict.fromkeys(self.cells.regime))

    @property
    def arms(self) -> list[str]:
        """The matrix's arms, from the smallest rank to full fine-tuning."""
        ranks = sorted(self.cells["rank"].dropna().unique())
        return [f"r{int(rank)}" for rank in ranks] + (["full"] if (self.cells.arm == "full").any() else [])

    def measured(self, metric: str) -> pd.DataFrame:
        """One row a cell, finished or not, and step at which the metric is known: `value`, of a batch or evaluation."""
        curves = self.curves
        frame = curves if metric in curves else self.steps.reindex(columns=["cell", *KEYS, "step", metric])
        return frame[["cell", *KEYS, "step", metric]].rename(columns={metric: "value"}).dropna(subset="value")

    def of_finished(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The rows of `steps`, `evals` or `curves` that belong to finished cells."""
        return frame[frame.cell.isin(self.finished.cell)]


def studied(runs: str | Path | None = None) -> str:
    """The preset that the book is about: `LRD_PRESET`, or else the first that is finished, or at least begun.

    The published one comes first, then the one that anyone can run, then any other. A preset that stands on another
    one, or asks a question of its own, is an experiment beside it, not what the book is about.
    """
    if chosen := os.environ.get("LRD_PRESET"):
        return chosen
    names = dict.fromkeys(
        [PUBLISHED, DEFAULT, *(name for name in preset_names() if not {"base", "about"} & read_preset(name).keys())]
    )

    def done(name: str) -> list[bool]:
        return [(root(runs) / name / cell.name / "done.json").is_file() for cell in grid(name)]

    whole, begun = (name for name in names if all(done(name))), (name for name in names if any(done(name)))
    return next(itertools.chain(whole, begun), DEFAULT)


def with_runs(runs: str | Path | None = None) -> list[str]:
    """The studied preset, whatever there is of it, and after it the others of which some cell was begun."""
    first = studied(runs)
    return [
        first,
        *(name for name in preset_names() if name != first and any((root(runs) / name).glob("*/config.json"))),
    ]


def root(runs: str | Path | None = None) -> Path:
    """Where runs are read from: `runs`, or `LRD_RUNS`, or the clone's own."""
    return runs_root(runs or os.environ.get("LRD_RUNS"))


def load(preset: str, runs: str | Path | None = None) -> Results:
    """Reads every cell of the preset's matrix, unless this process has read the very same files before.

    Raises `UserError` for an unknown preset only.
    """
    below, cells = root(runs) / preset, tuple(grid(preset))
    others = tuple(_others(preset, off_grid(below, {cell.name for cell in cells})))
    return replace(_copied(preset, below, cells), off_grid=_copied(preset, below, others) if others else None)


def _others(preset: str, paths: list[Path]) -> Iterator[Cell]:
    """The cells of directories that hold none of the matrix; one whose name is not its cell's is some copy."""
    for path in paths:
        with contextlib.suppress(UserError):
            config = with_defaults(read_json(path / "config.json") or {})
            cell = Cell.load(
                preset, **{key: config[key] for key in config.keys() & Cell.__dataclass_fields__.keys() - {"preset"}}
            )
            if cell.name == path.name:
                yield cell


def _copied(preset: str, below: Path, cells: tuple[Cell, ...]) -> Results:
    """What `_load` has read of these cells, in frames of the caller's own."""
    states = tuple(state(below / cell.name) for cell in cells)
    seen = frozenset().union(*(stamps(below / cell.name) for cell in cells))
    found = _load(preset, below, cells, states, seen)
    frames = {
        name: getattr(found, name).copy(deep=False) for name in ("steps", "evals", "further", "cells")
    }  # copied on write
    return replace(found, problems=[*found.problems], **frames)


def stamps(path: Path) -> frozenset[tuple[str, int, int]]:
    """Path, time and size of each file of a run. Of one that is being written, files come and go meanwhile."""
    found = set()
    with contextlib.suppress(OSError):
        for file in os.scandir(path):
            with contextlib.suppress(OSError):
                found.add((file.path, file.stat().st_mtime_ns, file.stat().st_size))
    return frozenset(found)


@functools.lru_cache(maxsize=16)
def _load(preset: str, below: Path, whole: tuple[Cell, ...], states: tuple[str, ...], seen: frozenset) -> Results:
    """What lies in the folder `LRD_CACHE`, if it was read from the very same files; else reads, and leaves it there."""
    if not (folder := os.environ.get("LRD_CACHE")):
        return _read_all(preset, below, whole, states)
    key = repr((preset, below, [cell.config for cell in whole], states, sorted(seen)))
    path = Path(folder) / f"{preset}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    if path.is_dir():
        frames = {name: pd.read_parquet(path / f"{name}.parquet") for name in FRAMES}
        return Results(preset, **frames, **json.loads((path / "rest.json").read_text(encoding="utf-8")))
    found = _read_all(preset, below, whole, states)
    (part := path.with_name(f".{os.getpid()}-{path.name}")).mkdir()
    with contextlib.suppress(pyarrow.ArrowException, OSError):  # Arrow cannot hold it; another process was first
        for name in FRAMES:
            getattr(found, name).to_parquet(part / f"{name}.parquet")
        write_json(part / "rest.json", {"problems": found.problems, "axes": found.axes})
        part.rename(path)
    return found


def _read_all(preset: str, below: Path, whole: tuple[Cell, ...], states: tuple[str, ...]) -> Results:
    rows, *logs, troubles = zip(*(_read(cell, below / cell.name, there) for cell, there in zip(whole, states)))
    frame, axes = pd.DataFrame(rows), further_axes(preset)
    frame["rank"] = frame["rank"].astype(float)  # NaN is full fine-tuning
    steps, evals, further = (
        pd.concat(parts, ignore_index=True)
        if (parts := [log for log in each if len(log)])
        # nothing of any cell: the columns that every reader relies on
        else pd.DataFrame(columns=[*columns, "cell", *KEYS, *axes])
        for each, columns in zip(logs, (STEP_COLUMNS, EVAL_COLUMNS, ["set", *EVAL_COLUMNS]))
    )
    problems = [f"{cell.name}: {text}" for cell, trouble in zip(whole, troubles) for text in trouble]
    return Results(preset, steps, evals, frame, problems, axes, further)


def _read(cell: Cell, path: Path, there: str) -> tuple[dict[str, Any], *tuple[pd.DataFrame, ...], list[str]]:
    """A cell's row, its steps, its evaluations, those of further sets, and what is missing or unreadable of them."""
    trouble: list[str] = [] if there == "finished" else [there]
    if there == "failed" and (why := reason(path)):
        trouble[0] = f"failed: {why}"
    run = _json(path / "provenance.json", trouble).get("run")
    config = _json(path / "config.json", trouble)
    config = with_defaults(config) if config else cell.config
    differing = [key for key, value in cell.config.items() if config.get(key) != value]
    if differing:
        changes = ", ".join(f"{key} = {config.get(key)!r} (preset: {cell.config[key]!r})" for key in differing)
        trouble.append(f"ran with other settings than the preset's: {changes}")
    page = has_page(path, there)
    if there == "finished" and (path / "cell.ipynb").exists() and not page:
        trouble.append("cell.ipynb is unreadable, so it has no page")
    steps = _log(path / "metrics.jsonl", STEP_COLUMNS, there, trouble)
    evals = _log(path / "evals.jsonl", EVAL_COLUMNS, there, trouble)
    sets = [each.name for each in held_out_sets(cell.eval_data, cell.eval_problems)[1:]]
    further = _log(path / "further.jsonl", ["set", *EVAL_COLUMNS], there, trouble) if sets else evals[:0]
    validation = frame_of(path / "validation.jsonl")[0] if cell.validation_problems else None
    keys = {"cell": cell.name, "regime": cell.regime, "arm": cell.arm, "seed": cell.seed}
    keys |= {key: path_safe(value) if isinstance(value, tuple) else value for key, value in cell.point.items()}
    parameters = run.get("trainable_parameters", np.nan) if isinstance(run, dict) else np.nan
    row = keys | {"rank": cell.rank, "trainable_parameters": parameters, "state": there, "page": page}
    row |= summary(steps, evals) | validated(validation)
    for name in sets:
        its = summary(steps[:0], further[further["set"] == name] if len(further) else further)
        row |= {f"{key} {name}": its[key] for key in ("base", "final", "peak", "area")}
    logs = (log.assign(**keys) if len(log) else log for log in (steps, evals, further))
    return row, *logs, trouble


def _log(path: Path, columns: list[str], there: str, trouble: list[str]) -> pd.DataFrame:
    """A log with its numbers as numbers, without rows where it lacks a column; faults go to `trouble`."""
    frame, broken = frame_of(path)
    if broken:
        trouble.append(f"{path.name}: {_some_lines(broken)} cannot be read")
    if not len(frame):
        if there == "finished":
            trouble.append(f"{path.name} is missing or empty")
        return frame
    if lacking := [name for name in columns if name not in frame]:
        trouble.append(f"{path.name} has no {', '.join(lacking)}")
        return frame[:0]
    numbers = frame.columns.difference(["problem", "set"], sort=False)
    loose = [name for name in numbers if not pd.api.types.is_numeric_dtype(frame[name])]
    frame = frame.assign(**frame[loose].apply(pd.to_numeric, errors="coerce"))
    needed = [name for name in numbers if name in EVAL_COLUMNS and not (name == "correct" and "score" in frame)]
    if (bad := frame[needed].isna().any(axis=1)).any():
        trouble.append(f"{path.name}: {bad.sum()} rows have no number in {', '.join(needed)}")
    return frame[~bad]


def frame_of(path: Path) -> tuple[pd.DataFrame, list[int]]:
    """The rows of a log, and the numbers of the lines that hold none."""
    if (whole := _by_arrow(path)) is not None:
        return whole, []
    rows = list(parsed_lines(path))
    broken = [number for number, row in enumerate(rows, 1) if row is None]
    return pd.DataFrame([row for row in rows if row is not None]), broken


def _by_arrow(path: Path) -> pd.DataFrame | None:
    """The same frame in a fifth of the time; None where not every line is whole and of plain values."""
    with contextlib.suppress(OSError, lzma.LZMAError, pyarrow.ArrowInvalid):
        text = read_log(path)
        table = pyarrow.json.read_json(io.BytesIO(text))
        steps = table.column("step") if "step" in table.column_names else None
        if table.num_rows == text.count(b"\n") and steps is not None and steps.type == "int64" and not steps.null_count:
            return table.to_pandas() if {str(kind) for kind in table.schema.types} <= PLAIN else None
    return None


def _some_lines(numbers: list[int]) -> str:
    few = ", ".join(map(str, numbers[:5])) + (", …" if len(numbers) > 5 else "")
    return f"line {few}" if len(numbers) == 1 else f"lines {few} ({len(numbers)} in all)"


def _json(path: Path, trouble: list[str]) -> dict[str, Any]:
    try:
        return read_json(path) or {}
    except UserError as error:
        trouble.append(str(error))
        return {}


def read_run(path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Steps and evaluations of one run directory."""
    evals = pd.DataFrame(read_jsonl(path / "evals.jsonl"))
    evals = evals.astype({"correct": float} if "correct" in evals else {})  # null without a gold answer
    return pd.DataFrame(read_jsonl(path / "metrics.jsonl")), evals


def measure(evals: pd.DataFrame) -> str:
    """The column that evaluations are read by: `correct`, or `score` where no problem has a gold answer."""
    return "score" if "score" in evals and not evals.correct.notna().any() else "correct"


def summary(steps: pd.DataFrame, evals: pd.DataFrame) -> dict[str, Any]:
    """A cell in numbers: base, final and peak pass@1, area under its curve (mean over steps), peak advantage std.

    Where no problem has a gold answer, they are the score's instead.
    """
    row = dict.fromkeys(("base", "final", "peak", "area", "peak_advantage_std", "last_step", "train_seconds"), np.nan)
    if len(evals):
        curve = evals.groupby("step")[measure(evals)].mean()
        row |= {"final": curve.iloc[-1], "peak": curve.max(), "area": area(curve)}
        row["base"] = curve.get(0, np.nan)
    if len(steps):
        row["last_step"] = steps.step.max()
        row["train_seconds"] = steps.step_time.sum()
        row["peak_advantage_std"] = steps.advantage_std.max()
    return row


def validated(validation: pd.DataFrame | None) -> dict[str, Any]:
    """What the validation split says of a cell: the step of its highest pass@1, the earliest of equal ones; its area.

    Empty where there is no such split, NaN where nothing of it can be read.
    """
    if validation is None:
        return {}
    if not len(validation):
        return {"chosen_step": np.nan, "validation_area": np.nan, "validation_final": np.nan}
    curve = validation.groupby("step")[measure(validation)].mean()
    return {"chosen_step": curve.idxmax(), "validation_area": area(curve), "validation_final": curve.iloc[-1]}


def area(curve: pd.Series) -> float:
    """Mean over steps of a curve that is indexed by them, by trapezoids."""
    width = curve.index[-1] - curve.index[0]
    return float(np.trapezoid(curve.to_numpy(), curve.index.to_numpy(float)) / width if width else curve.iloc[-1])


def has_page(path: Path, there: str | None = None) -> bool:
    """Whether a run's executed notebook can be a page of the book: it is whole, and nobody is writing it.

    A cell that was trained by hand or by plain papermill has its notebook elsewhere.
    """
    if (there or state(path)) in ("absent", "running"):
        return False
    try:
        notebook = json.loads((path / "cell.ipynb").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(notebook, dict) and bool(notebook.get("cells")) and notebook.get("nbformat") == 4


def baseline(preset: str, runs: str | Path | None = None) -> pd.DataFrame | None:
    """The samples of `lrd baseline`: one row a model, problem and sample (`greedy` or a number); None without them."""
    path = root(runs) / preset / "baseline" / "samples.jsonl"
    try:
        frame = pd.read_json(io.BytesIO(read_log(path)), lines=True, dtype={"sample": str, "problem": str})
    except (OSError, ValueError, lzma.LZMAError):
        return None
    return frame if {"model", "problem", "level", "sample", "correct", "length"} <= set(frame) else None


def unbiased(n: int, correct: int, k: int) -> float:
    """The chance that one of k samples is right, estimated from n (Chen et al. 2021, eq. 1).

    Raises `ValueError` where there are fewer than k samples.
    """
    if not 0 <= correct <= n or not 1 <= k <= n:
        raise ValueError(f"pass@{k} needs k of n = {n} samples, {correct} of them correct")
    return 1 - math.comb(n - correct, k) / math.comb(n, k)


def published() -> dict[str, Any]:
    """The original report's numbers (book/published.toml)."""
    return tomllib.loads((ROOT / "book" / "published.toml").read_text(encoding="utf-8"))


def card(preset: str, runs: str | Path | None = None) -> dict[str, Any] | None:
    """The card of the testbed that the preset's runs were trained with, or None where it is not at hand.

    It is the published one if the runs began from the published student, and else the one that lies with the models.
    """
    kept = record(preset) or {}
    if trained_with(preset, runs) & set(kept.get("environment", {}).get("student", [])):
        return kept.get("card")
    try:
        return read_json(ROOT / "models" / preset / "card.json")
    except UserError:
        return None


def trained_with(preset: str, runs: str | Path | None = None) -> set[str]:
    """Fingerprints of the students that the preset's finished cells began from."""
    matrix = {cell.name for cell in grid(preset)} if preset in preset_names() else set()
    paths = (path.parent for path in (root(runs) / preset).glob("*/done.json"))
    models = [models_of(path) for path in paths if path.name in matrix]
    return {m["student"] for m in models if isinstance(m.get("student"), str)}


def models_of(path: Path) -> dict[str, Any]:
    """Role → fingerprint of the models that a run began from; empty where its provenance does not say."""
    return recorded_models(read_provenance(path))


def recorded_models(provenance: dict[str, Any]) -> dict[str, Any]:
    """As `models_of`, of a provenance."""
    run = provenance.get("run")
    models = run.get("models") if isinstance(run, dict) else None
    return models if isinstance(models, dict) else {}


def read_provenance(path: Path) -> dict[str, Any]:
    """A run's provenance, or nothing where it cannot be read: `Results.problems` names that."""
    try:
        return read_json(path / "provenance.json") or {}
    except UserError:
        return {}
