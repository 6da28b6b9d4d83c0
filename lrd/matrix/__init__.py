"""A preset's cells, each through its notebook: papermill executes one, Ray runs them side by side.

What is finished is skipped, what another launch is at is left to it, what is lost with its worker or host is run again,
what fails is listed at the end and stops nothing else.
"""

import contextlib
import dataclasses
import functools
import logging
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from lrd import ROOT, UserError
from lrd.cell import Cell, grid, read_preset
from lrd.data import hub, problems
from lrd.runs import sources
from lrd.runs.directory import (
    LESS_MEMORY,
    STDERR,
    Held,
    Run,
    check_root,
    describe,
    few,
    leave_reason,
    notebook_ended,
    reason,
    said_finished,
    state,
    trace,
)
from lrd.runs.files import Unreadable, read_json, runs_root, shown_path, write_json, write_text
from lrd.runs.provenance import stamp
from lrd.runs.redact import redact
from lrd.runs.signals import on_stop
from lrd.runs.status import Watch
from lrd.train import tracking

RETRIES = 2  # of a cell that was lost with its kernel, worker or host; one that raises is not run again
RAY_FOLDER = 30  # letters of a directory below which Ray's sockets still have paths of at most 107
RAY_STARTS = 3  # Ray gives its own processes 15 s to start, which a busy machine may exceed
# A kernel looks for its parent once a second and ends when that is gone. One whose parent died before its first look
# takes who adopted it for the parent, unless that is process 1 (on desktops it is not); this comes before that look.
TETHER = "--IPKernelApp.exec_lines=import os; os.getppid() == int(os.environ['JPY_PARENT_PID']) or os._exit(1)"
KERNEL_SECONDS = 600  # that a kernel may take to start: a busy machine, a cold network disk


class Outcome(NamedTuple):
    """How the execution of one cell ended."""

    state: str
    reason: str = ""
    traceback: str = ""


def cells(preset: str) -> list[Cell]:
    """The matrix of a preset, in a stable order."""
    return grid(preset)


def execute(
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
    return _ended(run.path, died)


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
                error = _papermill("cell", path / "cell.ipynb", parameters, runs, show)
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
        if _oom_kills() == kills:
            return "its kernel died"
        why = f"out of memory: {LESS_MEMORY} (its kernel died while this host killed a process for want of memory)"
        leave_reason(path, why)
        return why
    if error and error.ename == "KeyboardInterrupt":
        raise KeyboardInterrupt
    if error and not failed.is_file():  # not from training, which leaves its own
        leave_reason(path, f"{error.ename}: {error.evalue}", traceback=plain(str(error)))
    return ""


def plain(text: str) -> str:
    """Without the colours that IPython and Ray give to tracebacks."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def _signal_kernel(number: int) -> None:
    """To the kernel that this process has started. SIGTERM, since Ray's workers and what they start block SIGINT."""
    kernels = psutil.Process().children()
    for kernel in kernels:
        with contextlib.suppress(psutil.NoSuchProcess):
            kernel.send_signal(number)
    if not kernels:  # not yet started, or gone
        raise KeyboardInterrupt


def _ended(path: Path, why: str = "") -> Outcome:
    return Outcome(state(path), why or reason(path), trace(path))


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


def study(name: str, preset: str, overrides: dict[str, Any], runs: str | None = None) -> Path:
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
        _check_study(name, preset, overrides)  # what can be refused is refused before a kernel starts
        output.parent.mkdir(parents=True, exist_ok=True)
        parameters = {"preset": preset} | ({"overrides": overrides} if overrides else {})
        if error := _papermill(name, output, parameters, runs, show=True):
            raise error
        about = {"notebook": f"notebooks/{name}.ipynb", "overrides": overrides, "code": code}
        write_json(output.parent / "done.json", about | stamp())
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


def _check_study(name: str, preset: str, overrides: dict[str, Any]) -> None:
    """Raises `UserError` for what the notebook cannot work with: `rewards` tries all regimes, `baseline` no PRM."""
    if name == "rewards":
        check_inputs(list({cell.regime: cell for cell in grid(preset, **overrides)}.values()))
    else:
        cell = grid(preset, **read_preset(preset).get("baseline", {}) | overrides)[0]
        hub.fetch_inputs(cell)
        hub.model_folder(cell.teacher, "teacher", weights=False)
        problems.held_out(cell.eval_data, cell.eval_problems)


def _papermill(name: str, output: Path, parameters: dict[str, Any], runs: str | None, show: bool) -> Any:
    """Executes `notebooks/<name>.ipynb`, its copy saved as it goes; returns papermill's error, if there is one.

    A `UserError` in the notebook is raised as one.
    """
    import papermill
    from papermill.iorw import papermill_io
    from traitlets.config import Config

    where = os.path.relpath(output, ROOT) if output.is_relative_to(ROOT) else str(output)
    papermill_io.register(where, _Copy())
    sockets, said = _sockets(), _Stderr(output.parent / STDERR, show)
    parameters |= {"runs": runs} if runs else {}
    try:
        with contextlib.chdir(ROOT):  # so that the executed copy names no path of this machine
            papermill.execute_notebook(
                f"notebooks/{name}.ipynb",
                where,
                parameters,
                kernel_name="python3",
                cwd=str(ROOT),
                progress_bar=False,
                start_timeout=KERNEL_SECONDS,
                extra_arguments=[TETHER],
                autosave_cell_every=5,
                stdout_file=_Stdout() if show else None,
                stderr_file=said,
                coalesce_streams=True,
                # Ports picked by many kernels at once collide now and then; a socket in a directory of its own cannot.
                config=Config(
                    KernelManager={"transport": "ipc", "ip": f"{sockets}/kernel"},
                    # The last output of a cell may come late on a busy machine; the library waits 4 s for it.
                    NotebookClient={"kernel_manager_class": "lrd.runs.kernel.Kernel", "iopub_timeout": 60},
                ),
            )
    except papermill.PapermillExecutionError as error:
        for kind in (UserError, Held, Unreadable):
            if error.ename == kind.__name__:
                raise kind(error.evalue) from None
        return error
    finally:
        said.close()
        shutil.rmtree(sockets, ignore_errors=True)
    return None


def _sockets() -> str:
    """A new directory for a kernel's sockets, whose paths must not exceed some hundred characters."""
    return tempfile.mkdtemp(prefix="lrd-", dir="/tmp" if len(tempfile.gettempdir()) > 80 else None)


class _Copy:
    """How papermill writes an executed copy: whole or not at all, and without secrets."""

    def write(self, text: str, path: str) -> None:
        write_text(Path(path), text)

    def pretty_path(self, path: str) -> str:
        return path


class _Stdout:
    """Where a kernel's output is shown: who reads it may leave (`lrd cell tiny | head`), and the cell goes on."""

    def write(self, text: str) -> None:
        with contextlib.suppress(BrokenPipeError):
            print(text, end="")

    def flush(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            print(end="", flush=True)


class _Stderr:
    """What a kernel writes to stderr, its warnings above all: kept beside its notebook, line by line, and shown."""

    def __init__(self, path: Path, show: bool):
        self._path, self._show, self._rest = path, show, ""

    def write(self, text: str) -> None:
        if self._show:
            with contextlib.suppress(BrokenPipeError):
                print(redact(text), end="", file=sys.stderr, flush=True)
        *lines, self._rest = (self._rest + text).split("\n")
        if lines:
            with (
                contextlib.suppress(OSError),
                self._path.open("a", encoding="utf-8") as file,
            ):  # a full disk has failed the cell already
                file.writelines(redact(line) + "\n" for line in lines)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        if self._rest:
            self.write("\n")


def check(cells: list[Cell], runs: str | None = None, other_code: bool = False) -> list[Run]:
    """Raises `UserError` for what this host can refuse before anything starts: run directories, models, problems.

    Returns those that are finished, which are shown without their models.
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
    return list(finished.values())


def check_inputs(cells: list[Cell]) -> None:
    """Raises `UserError` where models or problems of the cells cannot work; what needs no torch comes first."""
    train_pool, held_out = functools.cache(problems.train_pool), functools.cache(problems.held_out)
    validation = functools.cache(problems.validation)
    for cell in cells:
        hub.fetch_inputs(cell)
        train_pool(cell.train_data, cell.prompts_per_step)
        held_out(cell.eval_data, cell.eval_problems)
        validation(cell.eval_data, cell.validation_problems, cell.eval_problems)
    from lrd import rewards, sampling
    from lrd.models import loading as models, placement
    from lrd.train import inputs

    for cell in cells:
        sampling.check(cell)
        if role := rewards.model_of(cell):
            hub.model_folder(getattr(cell, role.lower()), role, weights=False)
    for cell in {(cell.student, cell.lora_targets, cell.lora_layers): cell for cell in cells if cell.rank}.values():
        placement.check(cell)
    load_tokenizer = functools.cache(models.load_tokenizer)
    # Adapters and how they are trained play no part.
    alike: dict[str, Any] = {"rank": 1, "seed": 0, "learning_rate": 0.0, "lora_targets": ("",), "lora_layers": ()}
    for cell in dict.fromkeys(dataclasses.replace(cell, **alike) for cell in cells):
        pool, _ = train_pool(cell.train_data, cell.prompts_per_step)
        asked = held_out(cell.eval_data, cell.eval_problems)
        asked = asked + validation(cell.eval_data, cell.validation_problems, cell.eval_problems)
        inputs.check(cell, load_tokenizer(cell.student, "student"), pool, asked)


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
    if jobs is not None and jobs < 1:
        raise UserError(f"--jobs is {jobs}; it has to be at least 1")
    gpus = float(gpus_per_cell or 0)
    if not (0 <= gpus <= 1 or (gpus > 1 and gpus.is_integer())):
        raise UserError(f"--gpus-per-cell is {gpus:g}; it has to be a fraction of one GPU, or whole ones")
    overrides = overrides or {}
    cells = grid(preset, narrowed, **overrides)
    finished = {run.cell: run for run in check(cells, runs, other_code) if notebook_ended(run.path)}
    needs = {"cpus": 1, "gpus": 0} | read_preset(preset).get("resources", {})
    needs |= {} if gpus_per_cell is None else {"gpus": gpus_per_cell}
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
    import ray

    try:
        _start_ray(address, int(jobs * needs["cpus"]))
        _check_room(preset, needs, address)
        with contextlib.suppress(Held), Run(todo[0], runs, hold=False).launching():
            pass  # it can be written to, then
        task = ray.remote(num_cpus=needs["cpus"], num_gpus=needs["gpus"], max_retries=0)(_guarded)
        outcomes, stopped = _drive(lambda cell: task.remote(cell, overrides, runs, other_code), todo, jobs, runs)
    finally:
        ray.shutdown()
    bad = {name: outcome for name, outcome in sorted(outcomes.items()) if outcome.state != "finished"}
    for name, outcome in bad.items():
        if outcome.traceback:
            print(f"{name}:\n{outcome.traceback.rstrip()}\n", file=sys.stderr)
    for name, outcome in bad.items():
        print(f"{name}: {outcome.state}: {outcome.reason}", file=sys.stderr)
    if stopped:
        raise KeyboardInterrupt
    return 1 if bad else 0


def _start_ray(address: str | None, cpus: int) -> None:
    import ray

    os.environ.setdefault("OMP_NUM_THREADS", "1")  # cells side by side: threads of one would slow down the other
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address:
        host, _, port = address.removeprefix("ray://").rpartition(":")
        try:
            if host and port.isdigit() and not os.environ.get("RAY_USE_TLS"):  # Ray itself tries for minutes
                _greet(host, int(port))
            with _stderr_kept():
                ray.init(address, **quiet)
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(
                f"no Ray cluster answers at {address!r} ({describe(error)}); `ray start --head` starts one and says "
                f"where, RAY_AUTH_MODE and the token have to be its own, and without --address and RAY_ADDRESS cells "
                f"run on this machine"
            ) from None
        return
    if len(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()) > RAY_FOLDER:
        quiet["_temp_dir"] = "/tmp/ray"
    for left in reversed(range(RAY_STARTS)):
        try:
            ray.init("local", num_cpus=cpus, include_dashboard=False, object_store_memory=100 * 2**20, **quiet)
            return
        except Exception as error:  # Ray's own are of no kind
            ray.shutdown()
            if not left:
                raise UserError(f"Ray does not start on this machine: {describe(error)}") from error


def _greet(host: str, port: int) -> None:
    """Raises `OSError` where nothing that speaks HTTP/2, as Ray's gRPC does, answers within seconds."""
    with socket.create_connection((host, port), timeout=10) as one:
        one.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5))  # RFC 9113, §3.4
        if one.recv(9)[3:4] != b"\x04":  # SETTINGS
            raise ConnectionError("what listens there is not Ray")


@contextlib.contextmanager
def _stderr_kept() -> Iterator[None]:
    """What C++ writes to standard error is shown where the block does not raise: its error says the same in a line."""
    sys.stderr.flush()
    shown = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
            kept.seek(0)
            os.write(shown, kept.read())
        finally:
            os.dup2(shown, 2)
            os.close(shown)


def _check_room(preset: str, needs: dict[str, float], address: str | None) -> None:
    """Ray waits for ever for a host that can take a cell; on a cluster, one may be on its way."""
    import ray

    hosts = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(host.get("CPU", 0) >= needs["cpus"] and host.get("GPU", 0) >= needs["gpus"] for host in hosts):
        return
    takes = f"a cell of preset {preset!r} takes {needs['gpus']:g} GPU and {needs['cpus']:g} CPU"
    if not address:
        raise UserError(
            f"{takes} ([resources] in lrd/presets/{preset}.toml, or --gpus-per-cell), and Ray finds too few here; "
            f"run it on a GPU host"
        )
    print(f"{takes}, and no host of the cluster has them: waiting for one that does", file=sys.stderr, flush=True)


def _drive(start: Callable, todo: list[Cell], jobs: int, runs: str | None) -> tuple[dict[str, Outcome], bool]:
    """Starts every cell, at most `jobs` at a time; how each ended, and whether all were told to stop."""
    import ray

    waiting, pending, held = deque(todo), {}, []
    paths = {cell.name: Run(cell, runs, hold=False).path for cell in todo}
    outcomes: dict[str, Outcome] = {}
    lost: Counter[str] = Counter()
    stopping = False
    with on_stop() as asked, Watch(todo, runs) as watch:
        while waiting or pending or held:
            if asked:
                waiting.clear()
                held.clear()
            if asked and not stopping:
                stopping = True
                print(
                    "lrd: running cells finish their step and save their state; Ctrl-C again stops them at once",
                    file=sys.stderr,
                    flush=True,
                )
                for future in pending:
                    ray.cancel(future)  # a SIGINT for the worker that runs it
            while waiting and len(pending) < jobs:
                cell = waiting.popleft()
                pending[start(cell)] = cell
            for future in _ready(pending):
                cell = pending.pop(future)
                outcome = _outcome(future, paths[cell.name])
                if outcome.state == "running":  # in another launch's hands
                    held.append(cell)
                elif outcome.state in ("absent", "interrupted") and lost[cell.name] < RETRIES and not asked:
                    lost[cell.name] += 1
                    waiting.append(cell)
                else:
                    outcomes[cell.name] = outcome
            for cell in [cell for cell in held if state(paths[cell.name]) != "running"]:
                held.remove(cell)
                if state(paths[cell.name]) == "failed":  # there, and would here
                    outcomes[cell.name] = _ended(paths[cell.name])
                else:
                    waiting.append(cell)
            watch.update([*pending.values(), *held])
    return outcomes, stopping


def _ready(pending: dict[Any, Cell]) -> list[Any]:
    """Futures that are through; waits a second where none is."""
    import ray

    if not pending:
        time.sleep(1)
        return []
    return ray.wait(list(pending), timeout=1)[0]


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


def _guarded(cell: Cell, overrides: dict[str, Any], runs: str | None, other_code: bool) -> Outcome:
    try:
        return execute(cell, overrides, runs, other_code=other_code)
    except Held:
        return Outcome("running")
    except UserError as error:
        return Outcome("failed", str(error))
