"""All cells of a preset side by side, over Ray.

What is finished is skipped, what another launch is at is left to it, what is lost with its worker or host is run again,
what finds memory full waits until another cell is through, what fails is listed at the end and stops nothing else.
"""

import contextlib
import os
import re
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lrd import UserError
from lrd.cell import Cell, grid
from lrd.matrix import cluster
from lrd.matrix.execute import Outcome, outcome_of, run_cell
from lrd.matrix.notebook import plain
from lrd.matrix.plan import check
from lrd.names import BESIDE, runs_root
from lrd.presets import read_preset
from lrd.runs.directory import Held, Run, describe, few, leave_reason, state
from lrd.runs.signals import on_stop
from lrd.runs.sources import CALLED_FROM, called_from
from lrd.runs.status import Watch

NO_ROOM = re.compile("out of memory|needs about [0-9]+ GiB")  # what `describe` and `memory.check` say of full memory
RETRIES = 2  # of a cell that was lost with its kernel, worker or host; one that raises is not run again


def run(
    preset: str,
    narrowed: dict[str, list[Any] | None] | None = None,
    overrides: dict[str, Any] | None = None,
    *,
    jobs: int | None = None,
    address: str | None = None,
    gpus_per_cell: float | None = None,
    runs: str | None = None,
    other_code: bool = False,
) -> int:
    """Runs every cell that is not finished, `jobs` at a time; returns the exit status, 1 if any failed.

    On a Ray of its own, or on the cluster at `address` (else RAY_ADDRESS), as it is. `gpus_per_cell` stands in for the
    preset's; a fraction shares a GPU. After SIGINT or SIGTERM running cells save their state and stop, and
    KeyboardInterrupt is raised; after a second SIGINT, at once.
    """
    needs = _needs(preset, jobs, gpus_per_cell)
    overrides = overrides or {}
    cells = grid(preset, narrowed, **overrides)
    finished = {run.cell: run for run in check(cells, runs, other_code)}
    todo = [cell for cell in cells if cell not in finished]
    address = address or os.environ.get("RAY_ADDRESS")
    jobs = jobs or (len(cells) if address else max(1, int((os.cpu_count() or 1) // needs["cpus"])))
    where = f"on the cluster at {address}" if address else f"{jobs} at a time"
    done = f"{len(finished)} of {len(cells)} cells finished"
    print(f"matrix {preset}: {done}; {where}; runs in {runs_root(runs)}", flush=True)
    if changed := [files for run in finished.values() if (files := run.changed)]:
        files = few(sorted(set().union(*changed)))
        print(f"{len(changed)} of these were trained with other code ({files} changed since)", flush=True)
    if not todo:
        return 0
    with cluster.started(preset, address, jobs, needs):
        with contextlib.suppress(Held), Run(todo[0], runs, hold=False).launching():
            pass  # it can be written to, then
        outcomes, stopped = _drive(_starter(needs, overrides, runs, other_code, _environment()), todo, jobs, runs)
    failed = _report(outcomes)
    if stopped:
        raise KeyboardInterrupt
    return 1 if failed else 0


def _environment() -> dict[str, str]:
    """What tells a worker, on whichever host, where files of one's own lie."""
    return {CALLED_FROM: called_from(), BESIDE: os.environ.get(BESIDE, "")}


def _needs(preset: str, jobs: int | None, gpus_per_cell: float | None) -> dict[str, float]:
    """CPUs and GPUs that a cell takes. Raises `UserError` for numbers of the command line that cannot work."""
    if jobs is not None and jobs < 1:
        raise UserError(f"--jobs is {jobs}; it has to be at least 1")
    gpus = float(gpus_per_cell or 0)
    if not (0 <= gpus <= 1 or (gpus > 1 and gpus.is_integer())):
        raise UserError(f"--gpus-per-cell is {gpus:g}; it has to be a fraction of one GPU, or whole ones")
    needs = {"cpus": 1, "gpus": 0} | read_preset(preset).get("resources", {})
    return needs | ({} if gpus_per_cell is None else {"gpus": gpus_per_cell})


def _starter(needs: dict[str, float], *settings: Any) -> Callable[[Cell], Any]:
    """What starts a cell as a task of Ray's, and returns its future."""
    import ray

    # The driver retries, once it knows what became of a cell.
    task = ray.remote(num_cpus=needs["cpus"], num_gpus=needs["gpus"], max_retries=0)(_guarded)
    return lambda cell: task.remote(cell, *settings)


def _report(outcomes: dict[str, Outcome]) -> bool:
    """Lists the cells that are not finished, their tracebacks first; returns whether there are any."""
    bad = {name: outcome for name, outcome in sorted(outcomes.items()) if outcome.state != "finished"}
    for name, outcome in bad.items():
        if outcome.traceback:
            print(f"{name}:\n{outcome.traceback.rstrip()}\n", file=sys.stderr)
    for name, outcome in bad.items():
        print(f"{name}: {outcome.state}: {outcome.reason}", file=sys.stderr)
    return bool(bad)


@dataclass
class _Work:
    """Where each cell of a launch stands: waiting, started, in another launch's hands, or through."""

    waiting: deque[Cell]
    paths: dict[str, Path]
    jobs: int  # at a time
    started: dict[Any, Cell] = field(default_factory=dict)  # by the future of its task
    elsewhere: list[Cell] = field(default_factory=list)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    losses: Counter[str] = field(default_factory=Counter)
    beside: set[str] = field(default_factory=set)  # of those started, the cells that others ran beside

    def take(self) -> Cell:
        """The next cell that waits, which is to be started."""
        cell = self.waiting.popleft()
        if self.started:
            self.beside |= {cell.name, *(other.name for other in self.started.values())}
        return cell

    def settle(self, cell: Cell, outcome: Outcome, retry: bool) -> None:
        """Takes the outcome of a task; what was lost waits again, if it may.

        So does what found memory full beside others, and from then on fewer run at a time.
        """
        if outcome.state == "running":
            self.elsewhere.append(cell)
        elif retry and outcome.state in ("absent", "interrupted") and self.losses[cell.name] < RETRIES:
            self.losses[cell.name] += 1
            self.waiting.append(cell)
        elif retry and outcome.state == "failed" and cell.name in self.beside and NO_ROOM.search(outcome.reason):
            self.beside.remove(cell.name)
            self.jobs = max(1, min(len(self.started), self.jobs - 1))
            self.waiting.append(cell)
            print(f"{cell.name} found memory full; it waits, and {self.jobs} run at a time from now on", flush=True)
        else:
            self.outcomes[cell.name] = outcome

    def look_elsewhere(self) -> None:
        """What another launch is through with waits again; what failed there would here."""
        for cell in [cell for cell in self.elsewhere if state(self.paths[cell.name]) != "running"]:
            self.elsewhere.remove(cell)
            if state(self.paths[cell.name]) == "failed":
                self.outcomes[cell.name] = outcome_of(self.paths[cell.name])
            else:
                self.waiting.append(cell)

    def drop_unstarted(self) -> None:
        """Nothing more is to be started."""
        self.waiting.clear()
        self.elsewhere.clear()


def _drive(start: Callable, todo: list[Cell], jobs: int, runs: str | None) -> tuple[dict[str, Outcome], bool]:
    """Starts every cell, at most `jobs` at a time; how each ended, and whether all were told to stop."""
    work = _Work(deque(todo), {cell.name: Run(cell, runs, hold=False).path for cell in todo}, jobs)
    stopping = False
    with on_stop() as asked, Watch(todo, runs) as watch:
        while work.waiting or work.started or work.elsewhere:
            if asked:
                work.drop_unstarted()
            if asked and not stopping:
                stopping = True
                _stop(work.started)
            while work.waiting and len(work.started) < work.jobs:
                cell = work.take()
                work.started[start(cell)] = cell
            for future in _ready(work.started):
                cell = work.started.pop(future)
                work.settle(cell, _outcome(future, work.paths[cell.name]), retry=not asked)
            work.look_elsewhere()
            watch.update([*work.started.values(), *work.elsewhere])
    return work.outcomes, stopping


def _stop(started: dict[Any, Cell]) -> None:
    import ray

    print(
        "lrd: running cells finish their step and save their state; Ctrl-C again stops them at once",
        file=sys.stderr,
        flush=True,
    )
    for future in started:
        ray.cancel(future)  # a SIGINT for the worker that runs it


def _ready(started: dict[Any, Cell]) -> list[Any]:
    """Futures that are through; waits a second where none is."""
    import ray

    if not started:
        time.sleep(1)
        return []
    return ray.wait(list(started), timeout=1)[0]


def _outcome(future: Any, path: Path) -> Outcome:
    """How a task ended: by itself, told to stop, or with its worker or its host."""
    import ray
    from ray.exceptions import OutOfMemoryError, RayError, RayTaskError, TaskCancelledError

    try:
        return ray.get(future)
    except TaskCancelledError:
        return Outcome("interrupted", "stopped; the same command goes on from its last state")
    except (RayTaskError, OutOfMemoryError) as error:  # raised outside the notebook; Ray's own guard of a host's memory
        outcome = Outcome("failed", describe(getattr(error, "cause", error)), plain(str(error)))
        leave_reason(path, outcome.reason, traceback=outcome.traceback)
        return outcome
    except RayError as error:
        return Outcome("interrupted", f"lost with its worker or host ({describe(error)})")


def _guarded(
    cell: Cell, overrides: dict[str, Any], runs: str | None, other_code: bool, environment: dict[str, str]
) -> Outcome:
    """A cell as a task: what it is refused for is its outcome and stops no other."""
    os.environ["LRD_RUNS"] = str(runs_root(runs))  # of another host: presets of one's own lie there
    os.environ.update(environment)
    try:
        return run_cell(cell, overrides, runs, other_code=other_code)
    except Held:
        return Outcome("running")
    except UserError as error:
        return Outcome("failed", str(error))
