"""One cell, or one study of a preset as a whole, through its notebook; how that ended is an outcome."""

import contextlib
import signal
import sys
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from lrd import UserError
from lrd.cell import Cell, grid
from lrd.data import hub
from lrd.matrix import notebook, plan
from lrd.names import runs_root
from lrd.runs import sources
from lrd.runs.directory import (
    LESS_MEMORY,
    Held,
    Run,
    check_root,
    describe,
    leave_reason,
    notebook_ended,
    reason,
    said_finished,
    state,
    trace,
)
from lrd.runs.files import Unreadable, read_json, shown_path, write_json
from lrd.runs.provenance import git, now
from lrd.runs.signals import on_stop
from lrd.train import tracking


class Outcome(NamedTuple):
    """How the execution of one cell ended."""

    state: str
    reason: str = ""
    traceback: str = ""


def run_cell(
    cell: Cell,
    overrides: dict[str, Any],
    runs: str | None = None,
    *,
    show: bool = False,
    other_code: bool = False,
) -> Outcome:
    """Runs one cell's notebook to its end in a kernel of its own, its executed copy saved as it goes.

    A finished cell stays as it is; the outcome's reason says so. `other_code` lets one go on though the code changed.
    Raises `UserError` before and from the notebook where the input cannot work (`Held` where another process has the
    cell), and KeyboardInterrupt once training has saved its state after SIGINT or SIGTERM, a second SIGINT not waiting
    for that. Any other error is an outcome.
    """
    run = Run(cell, runs, hold=False, other_code=other_code)
    with run.launching():
        try:
            run.hold()  # refuses a directory of another configuration before a kernel starts
        except Unreadable as broken:
            if not (run.path / "done.json").exists():
                leave_reason(run.path, str(broken))
            raise
        run.close()
        if _done(run):
            return Outcome("finished", run.finished_already)
        parameters = {"preset": cell.preset, "regime": cell.regime, "rank": cell.rank or "full", "seed": cell.seed}
        overrides = {key: cell.config.get(key, label) for key, label in cell.point.items()} | overrides
        parameters |= {"overrides": overrides} if overrides else {}
        parameters |= {"other_code": True} if other_code else {}
        died = _execute(cell, run.path, parameters, runs, show)
    return outcome_of(run.path, died)


def outcome_of(path: Path, why: str = "") -> Outcome:
    """What a run directory says of its cell; `why` stands in for the reason that it gives."""
    return Outcome(state(path), why or reason(path), trace(path))


def _execute(cell: Cell, path: Path, parameters: dict[str, Any], runs: str | None, show: bool) -> str:
    """The notebook of one cell; says why its kernel died, if it did. What fails the cell is left in `failed.json`."""
    from nbclient.exceptions import DeadKernelError

    failed, kills = path / "failed.json", _oom_kills()
    failed.unlink(missing_ok=True)
    stopped = False
    try:
        hub.fetch_inputs(cell)
        tracking.chosen()
        with on_stop(lambda: _signal_kernel(signal.SIGTERM), lambda: _signal_kernel(signal.SIGKILL)) as asked:
            try:
                error = notebook.execute("cell", path / "cell.ipynb", parameters, runs, show)
            finally:
                stopped = bool(asked)
    except Held:
        raise
    except UserError as refused:  # training leaves nothing of what it refuses
        leave_reason(path, str(refused))
        raise
    except OSError as full:  # the executed copy cannot be saved, perhaps because training has filled the disk
        if not failed.is_file():
            leave_reason(path, describe(full))
        return reason(path) or describe(full)
    except (DeadKernelError, RuntimeError) as died:
        if stopped:  # before training, or for the second time
            raise KeyboardInterrupt from None
        if not (isinstance(died, DeadKernelError) or str(died).startswith("Kernel died")):
            raise
        return _death(path, out_of_memory=_oom_kills() > kills)
    if error and error.ename == "KeyboardInterrupt":
        raise KeyboardInterrupt
    if error and not failed.is_file():  # not from training, which leaves its own
        leave_reason(path, f"{error.ename}: {error.evalue}", traceback=notebook.plain(str(error)))
    return ""


def _death(path: Path, out_of_memory: bool) -> str:
    """Why a kernel died. For want of memory it would again, so that fails the cell."""
    if not out_of_memory:
        return "its kernel died"
    why = f"out of memory: {LESS_MEMORY} (its kernel died while this host killed a process for want of memory)"
    leave_reason(path, why)
    return why


def _signal_kernel(number: int) -> None:
    """To the kernel that this process has started. SIGTERM, since Ray's workers and what they start block SIGINT."""
    kernels = psutil.Process().children()
    for kernel in kernels:
        with contextlib.suppress(psutil.NoSuchProcess):
            kernel.send_signal(number)
    if not kernels:  # not yet started, or gone
        raise KeyboardInterrupt


def _done(run: Run) -> bool:
    """Whether the cell is finished and its notebook whole; executed once more, that shows a finished cell as it is."""
    try:
        return run.finished and notebook_ended(run.path)
    except Unreadable:  # so it fails, in words, when its turn comes
        return False


def _oom_kills() -> int:
    """How many processes this host has killed for want of memory; 0 where it does not say."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/vmstat").read_text(encoding="utf-8").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def run_study(name: str, preset: str, overrides: dict[str, Any], runs: str | None = None) -> Path:
    """Executes a notebook that studies a preset as a whole (`baseline`, `rewards`), unless it is there already.

    Returns the executed copy, `runs/<preset>/<name>/<name>.ipynb`. One that is there is never overwritten: stderr says
    of when it is and which files have changed since, and other settings are refused. An error of the notebook goes on
    up.
    """
    output = runs_root(runs) / preset / name / f"{name}.ipynb"
    cells, done = grid(preset, **overrides), read_json(output.parent / "done.json")
    code = sources.digests(name, {cell.regime for cell in cells})
    if done is None:
        check_root(runs)
        plan.check_study(name, preset, overrides)  # what can be refused is refused before a kernel starts
        output.parent.mkdir(parents=True, exist_ok=True)
        parameters = {"preset": preset} | ({"overrides": overrides} if overrides else {})
        if error := notebook.execute(name, output, parameters, runs, show=True):
            raise error
        about = {"notebook": f"notebooks/{name}.ipynb", "overrides": overrides, "code": code}
        write_json(output.parent / "done.json", about | {"finished": now(), "git": git("rev-parse", "HEAD")})
        return output
    if (before := done.get("overrides", overrides)) != overrides:
        raise UserError(
            f"{shown_path(output.parent)} was made with the settings {before} and not {overrides}; ask for those, or "
            f"give another directory with --runs"
        )
    changed = sources.changed(done.get("code"), code)
    again = "; move it away to run it again" if changed else ""
    print(f"{name}: {said_finished(output.parent, done, changed)}{again}", file=sys.stderr, flush=True)
    return output
