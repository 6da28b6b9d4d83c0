"""Where a matrix stands, from the files of its runs alone: on any host that sees them, at any time, while it runs.

Of records only the end is read, and neither torch nor pandas is imported: a thousand cells take less than a second.
"""

import contextlib
import datetime
import json
import re
import textwrap
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lrd import UserError
from lrd.cell import Cell, grid, with_defaults
from lrd.names import runs_root
from lrd.presets import read_preset
from lrd.runs.directory import off_grid, reason, state, trace, warned
from lrd.runs.files import read_json, tail

RECENT = 5  # steps that `step_time` is a mean of
LEFT = ("absent", "running", "interrupted")  # what a matrix still has to run; a failed cell waits for its user
COLUMNS = "cell state step reward pass@1 s/step ETA host warnings".split()


class Row(NamedTuple):
    """One cell. What its files do not say is None."""

    cell: str
    state: str
    step: int  # the last on record
    steps: int
    reward: float | None = None  # of the last step
    accuracy: float | None = None  # pass@1 of the last evaluation
    step_time: float | None = None  # seconds a step, mean of the last ones
    pace: float | None = None  # seconds of wall time a step, evaluations included
    host: str | None = None
    note: str = ""  # why it failed, or what else is wrong
    traceback: str = ""  # of a failed cell
    warnings: Sequence[str] = ()
    off_grid: str = ""  # how it differs from the cells of the preset's matrix, if it is none of them

    @property
    def eta(self) -> float | None:
        """Seconds until a running cell has made its last step."""
        return self.pace * (self.steps - self.step) if self.state == "running" and self.pace is not None else None

    @property
    def shown(self) -> list[str]:
        """As a line of the table: a text for each of `COLUMNS`."""
        step = f"{self.step}/{self.steps}"
        numbers = [f"{x:.3f}" if x is not None else "–" for x in (self.reward, self.accuracy, self.step_time)]
        return [
            self.cell, self.state, step, *numbers, duration(self.eta), self.host or "–", str(len(self.warnings) or "")
        ]  # fmt: skip

    @property
    def remark(self) -> str:
        """What stands behind the columns: how it is off the grid, and the note or else the first warning."""
        first = textwrap.shorten(self.warnings[0] if self.warnings else "", 120, placeholder=" …")
        return "; ".join(filter(None, [self.off_grid, self.note or first]))

    @property
    def record(self) -> dict[str, Any]:
        """As an object of `--json`; durations are in seconds."""
        fields = self._asdict()
        return {("pass@1" if key == "accuracy" else key): value for key, value in fields.items()} | {"eta": self.eta}


def read(cells: Sequence[Cell], runs: str | Path | None = None) -> list[Row]:
    """The rows of these cells. It never raises on a bad run."""
    return [_read(runs_root(runs) / cell.preset, cell.name, cell.steps, cell.config) for cell in cells]


def read_all(preset: str, runs: str | Path | None = None) -> tuple[list[Row], list[Row]]:
    """The rows of a preset's matrix, and of the cells beside it that lie with its runs."""
    rows, below = read(grid(preset), runs), runs_root(runs) / preset
    others = off_grid(below, {row.cell for row in rows})
    return rows, [_read(below, path.name, 0, None) for path in others]


def table(preset: str, runs: str | None = None) -> str:
    """What the preset says of itself, its cells, one a line, the tracebacks of those that failed (the same one once),
    and how many are in which state."""
    matrix, others = read_all(preset, runs)
    rows = matrix + others
    widths = [max(map(len, column)) for column in zip(COLUMNS, *(row.shown for row in rows))]
    lines = [f"{key}: {text}" for key, text in read_preset(preset).get("about", {}).items()]
    lines.append(_aligned(COLUMNS, widths))
    lines += [f"{_aligned(row.shown, widths)}  {row.remark}".rstrip() for row in rows]
    for text in dict.fromkeys(row.traceback for row in rows if row.traceback):
        lines += ["", f"{', '.join(row.cell for row in rows if row.traceback == text)}:", text.rstrip()]
    lines += [""] * any(row.traceback for row in rows)
    return "\n".join([*lines, summary(matrix) + (f"; off the grid: {summary(others)}" if others else "")])


def as_json(preset: str, runs: str | None = None) -> str:
    """The same for machines."""
    rows, others = read_all(preset, runs)
    counts, cells = Counter(row.state for row in rows), [row.record for row in rows + others]
    return json.dumps({"preset": preset, "counts": counts, "eta": eta(rows), "cells": cells})


def summary(rows: Sequence[Row]) -> str:
    """Counts by state, and when what runs now will be through with the rest."""
    parts = [f"{n} {what}" for what, n in sorted(Counter(row.state for row in rows).items())]
    left = eta(rows)
    return " · ".join(parts + ([f"ETA {duration(left)}"] if left is not None else []))


def eta(rows: Sequence[Row]) -> float | None:
    """Seconds until all is finished, if as many cells keep running as do now; None while none has a pace."""
    running = [row for row in rows if row.state == "running"]
    paces = [row.pace for row in rows if row.pace is not None]
    if not running or not paces:
        return None
    usual = sum(paces) / len(paces)
    work = [(row.steps - row.step) * (usual if row.pace is None else row.pace) for row in rows if row.state in LEFT]
    return max(sum(work) / len(running), *(row.eta or 0.0 for row in running))


def duration(seconds: float | None) -> str:
    """`48 s`, `12 min` or `3.5 h`."""
    if seconds is None:
        return "–"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Watch:
    """Shows cells while they run: a table that is redrawn in a terminal, one line for each change of state elsewhere.

    A context; `update` is called again and again within it.
    """

    def __init__(self, cells: Sequence[Cell], runs: str | Path | None = None):
        from rich.console import Console
        from rich.live import Live

        console = Console(highlight=False)
        self._runs, self._next = runs, 0.0
        self._rows = {cell: Row(cell.name, "absent", 0, cell.steps) for cell in cells}
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def __enter__(self) -> "Watch":
        if self._live:
            self._live.start()
        self.refresh(self._rows)
        return self

    def __exit__(self, *error: object) -> None:
        self.refresh(self._rows)
        if self._live:
            self._live.stop()

    def update(self, cells: Iterable[Cell]) -> None:
        """Reads the cells that are under way, unless it did so a moment ago."""
        start = time.monotonic()
        if start >= self._next:
            self.refresh(cells)
            self._next = time.monotonic() + max(1.0, 20 * (time.monotonic() - start))  # a twentieth of the time at most

    def refresh(self, cells: Iterable[Cell]) -> None:
        """Reads these cells and those that were running, and shows what became of them."""
        running = {cell for cell, row in self._rows.items() if row.state == "running"}
        changed = []
        for cell in [cell for cell in self._rows if cell in running.union(cells)]:
            (row,) = read([cell], self._runs)
            if row.state != self._rows[cell].state:
                changed.append(row)
            self._rows[cell] = row
        rows = list(self._rows.values())
        if self._live:
            self._live.update(self._table(rows), refresh=True)
            return
        for row in changed:
            what = [row.note, f"pass@1 {row.accuracy:.3f}" if row.accuracy is not None else ""]
            print(": ".join(filter(None, [row.cell, row.state, *what])), f"({summary(rows)})", flush=True)

    @staticmethod
    def _table(rows: Sequence[Row]):
        """The cells that run or failed; the others are in the counts below."""
        from rich.table import Table

        shown = Table(*COLUMNS, "", box=None, caption=summary(rows), caption_justify="left")
        for row in rows:
            if row.state in ("running", "failed"):
                shown.add_row(*row.shown, row.note)
        return shown


def _read(below: Path, name: str, steps: int, asked: dict[str, Any] | None) -> Row:
    """The row of a cell's directory; `asked` is its configuration in the matrix, None where that has no such cell."""
    path = below / name
    now, session, config = state(path), _session(path), {}
    with contextlib.suppress(UserError):
        config = read_json(path / "config.json") or {}
    note, traceback = (reason(path), trace(path)) if now == "failed" else ("", "")
    row = Row(
        name,
        now,
        0,
        _count(config.get("steps"), steps),  # the run may have been made with another --set
        host=str(session.get("host") or "") or None,
        note=note,
        traceback=traceback,
        warnings=warned(path),
        off_grid=_off_grid(config, asked),
    )
    lines = tail(path / "metrics.jsonl", 2**13)
    last = _object(lines[-1]) if lines else {}
    if "step" not in last:
        return row
    reward = last.get("reward")
    times = [float(s) for s in re.findall(rb'"step_time": (\d[\d.]*)', b"\n".join(lines))[-RECENT:]]
    row = row._replace(
        step=_count(last["step"], 0),
        reward=reward if isinstance(reward, int | float) else None,
        accuracy=_accuracy(path / "evals.jsonl"),
        step_time=sum(times) / len(times) if times else None,
    )
    return _paced(row, session, path)


def _off_grid(config: dict[str, Any], asked: dict[str, Any] | None) -> str:
    """How a run differs from its cell in the matrix."""
    if asked is None:
        return "off the grid"
    others = [key for key, value in with_defaults(config).items() if config and asked.get(key) != value]
    return f"off the grid: {', '.join(others)}" if others else ""


def _paced(row: Row, session: dict[str, Any], path: Path) -> Row:
    """With its pace, by the wall clock since the session began: training, evaluations and all."""
    try:
        started = datetime.datetime.fromisoformat(session["started"]).timestamp()
        pace = ((path / "metrics.jsonl").stat().st_mtime - started) / (row.step - session["from_step"])
    except (KeyError, TypeError, ValueError, ArithmeticError, OSError):
        return row._replace(pace=row.step_time)
    if started > time.time() + 60 and not row.note:
        row = row._replace(note=f"began at {session['started']}, which is yet to come: a clock is wrong")
    return row._replace(pace=max(pace, row.step_time or 0.0))  # a clock that was put back makes no negative pace


def _accuracy(path: Path) -> float | None:
    """pass@1 of the last evaluation; None where no problem has a gold answer.

    Its rows are the last, and are counted in the form `Run.record` gives them.
    """
    size = 2**15
    while lines := tail(path, size):
        head = re.match(rb'\{"step": \d+, ', lines[-1])
        if head is None:
            return None
        rows = [line for line in lines if line.startswith(head[0])]
        if len(rows) < len(lines) or sum(map(len, lines)) < size // 2:
            known = [row for row in rows if b'"correct": null' not in row]
            return sum(b'"correct": true' in row for row in known) / len(known) if known else None
        size *= 4  # the evaluation is longer than that
    return None


def _session(path: Path) -> dict[str, Any]:
    """The last session on record: a flat object, and the last of provenance.json."""
    text = b"\n".join(tail(path / "provenance.json", 2**12))
    return _object(text[text.rfind(b"{") : text.rfind(b"}\n ]") + 1])


def _object(text: bytes) -> dict[str, Any]:
    """The JSON object that the text is; an empty one where it is none."""
    value = None
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(text)
    return value if isinstance(value, dict) else {}


def _count(value: Any, otherwise: int) -> int:
    return value if type(value) is int and 0 <= value < 2**31 else otherwise


def _aligned(texts: Sequence[str], widths: Sequence[int]) -> str:
    """Names to the left, numbers to the right."""
    left = {0, 1, COLUMNS.index("host")}
    return "  ".join(t.ljust(w) if i in left else t.rjust(w) for i, (t, w) in enumerate(zip(texts, widths))).rstrip()
