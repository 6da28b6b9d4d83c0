"""A preset's cells, each through its notebook: papermill executes one, Ray runs them side by side.

What is finished is skipped, what fails is listed at the end and stops nothing else.
"""

import contextlib
import logging
import os
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from lrd import ROOT, UserError, hub
from lrd.cell import Cell, grid, read_preset
from lrd.run import Run, describe, read_json, read_jsonl, runs_root, state, write_json

LOST_RETRIES = 2  # of a cell whose worker or node was lost; one that raises is not run again


class Outcome(NamedTuple):
    """How the execution of one cell ended."""

    state: str
    reason: str = ""


def cells(preset: str) -> list[Cell]:
    """The matrix of a preset, in a stable order."""
    return grid(preset)


def execute(cell: Cell, overrides: dict[str, Any], runs: str | None = None, *, show: bool = False) -> Outcome:
    """Runs one cell's notebook to its end in a kernel of its own, its executed copy saved as it goes.

    Raises `UserError` before and from the notebook where the input cannot work; any other error is an outcome.
    """
    from nbclient.exceptions import DeadKernelError

    run = Run(cell, runs)  # refuses a directory of another configuration before a kernel starts
    run.close()
    if run.finished:
        return Outcome("finished")
    hub.check(cell)
    parameters = {"preset": cell.preset, "regime": cell.regime, "rank": cell.rank or "full", "seed": cell.seed}
    parameters |= {"overrides": overrides} if overrides else {}
    try:
        error = _papermill("cell", run.path / "cell.ipynb", parameters, runs, show)
    except DeadKernelError:
        return Outcome(state(run.path), "its kernel died")
    if error and not (run.path / "failed.json").is_file():  # not from training, which leaves its own
        write_json(run.path / "failed.json", {"error": f"{error.ename}: {error.evalue}", "traceback": str(error)})
    return Outcome(state(run.path), reason(run))


def study(name: str, preset: str, overrides: dict[str, Any], runs: str | None = None) -> Path:
    """Executes a notebook that studies a preset as a whole (`baseline`, `rewards`), unless it is there already.

    Returns the executed copy, `runs/<preset>/<name>/<name>.ipynb`. An error of the notebook goes on up.
    """
    output = runs_root(runs) / preset / name / f"{name}.ipynb"
    if not (output.parent / "done.json").is_file():
        hub.check(grid(preset, **overrides)[0])  # what can be refused is refused before a kernel starts
        output.parent.mkdir(parents=True, exist_ok=True)
        parameters = {"preset": preset} | ({"overrides": overrides} if overrides else {})
        if error := _papermill(name, output, parameters, runs, show=True):
            raise error
        write_json(output.parent / "done.json", {"notebook": f"notebooks/{name}.ipynb"})
    return output


def _papermill(name: str, output: Path, parameters: dict[str, Any], runs: str | None, show: bool) -> Any:
    """Executes `notebooks/<name>.ipynb`, its copy saved as it goes; returns papermill's error, if there is one.

    A `UserError` in the notebook is raised as one.
    """
    import papermill
    from traitlets.config import Config

    sockets = tempfile.mkdtemp(prefix="lrd-")  # short: a socket's path has at most 107 characters
    parameters |= {"runs": runs} if runs else {}
    try:
        with contextlib.chdir(ROOT):  # so that the executed copy names no path of this machine
            papermill.execute_notebook(
                f"notebooks/{name}.ipynb",
                os.path.relpath(output, ROOT) if output.is_relative_to(ROOT) else output,
                parameters,
                kernel_name="python3",
                cwd=str(ROOT),
                progress_bar=False,
                autosave_cell_every=5,
                stdout_file=sys.stdout if show else None,
                coalesce_streams=True,
                # Ports picked by many kernels at once collide now and then; a socket in a directory of its own cannot.
                config=Config(KernelManager={"transport": "ipc", "ip": f"{sockets}/kernel"}),
            )
    except papermill.PapermillExecutionError as error:
        if error.ename == "UserError":
            raise UserError(error.evalue) from None
        return error
    finally:
        shutil.rmtree(sockets, ignore_errors=True)
    return None


def reason(run: Run) -> str:
    """Why a cell failed, in one line; empty where it did not."""
    return (read_json(run.path / "failed.json") or {}).get("error", "")


def run(
    preset: str,
    narrowed: dict[str, list[Any] | None] | None = None,
    overrides: dict[str, Any] | None = None,
    *,
    jobs: int | None = None,
    runs: str | None = None,
) -> int:
    """Runs every cell that is not finished, `jobs` at a time; returns the exit status, 1 if any failed."""
    import ray
    from ray.exceptions import RayError
    from tqdm import tqdm

    if jobs is not None and jobs < 1:
        raise UserError(f"--jobs is {jobs}; it has to be at least 1")
    overrides = overrides or {}
    todo = grid(preset, narrowed, **overrides)
    for cell in todo:  # what can be refused is refused before the first start
        hub.check(cell)
        Run(cell, runs).close()
    needs = read_preset(preset).get("resources", {"cpus": 1, "gpus": 0})
    jobs = jobs or max(1, int((os.cpu_count() or 1) // needs["cpus"]))
    done = [cell for cell in todo if (runs_root(runs) / preset / cell.name / "done.json").is_file()]
    todo = [cell for cell in todo if cell not in done]
    print(f"matrix {preset}: {len(done)} of {len(done) + len(todo)} cells finished; {jobs} at a time", flush=True)
    if not todo:
        return 0

    os.environ.setdefault("OMP_NUM_THREADS", "1")  # cells side by side: threads of one would slow down the other
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(
        num_cpus=jobs * needs["cpus"],
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=100 * 2**20,
    )
    task = ray.remote(num_cpus=needs["cpus"], num_gpus=needs["gpus"], max_retries=LOST_RETRIES)(_guarded)
    if ray.cluster_resources().get("GPU", 0) < needs["gpus"]:  # Ray would wait for one forever
        ray.shutdown()
        raise UserError(
            f"a cell of preset {preset!r} takes {needs['gpus']} GPU ([resources] in lrd/presets/{preset}.toml), "
            f"and Ray finds too few here; run it on a GPU host"
        )
    pending = {task.remote(cell, overrides, runs): cell for cell in todo}
    outcomes: dict[str, Outcome] = {}
    try:
        with tqdm(total=len(todo), unit="cell", smoothing=0, mininterval=1, dynamic_ncols=True) as bar:
            while pending:
                ready, _ = ray.wait(list(pending), timeout=5)
                for future in ready:
                    cell = pending.pop(future)
                    try:
                        outcomes[cell.name] = ray.get(future)
                    except RayError as error:
                        outcomes[cell.name] = Outcome("failed", describe(error))
                    bar.update()
                counts = Counter(outcome.state for outcome in outcomes.values())
                bar.set_postfix({"running": min(jobs, len(pending))} | counts)
    finally:
        ray.shutdown()
    failed = {name: outcome for name, outcome in outcomes.items() if outcome.state != "finished"}
    for name, outcome in sorted(failed.items()):
        print(f"{name}: {outcome.state}: {outcome.reason}", file=sys.stderr)
    return 1 if failed else 0


def _guarded(cell: Cell, overrides: dict[str, Any], runs: str | None) -> Outcome:
    try:
        return execute(cell, overrides, runs)
    except UserError as error:
        return Outcome("failed", str(error))


def status(preset: str, runs: str | None = None) -> str:
    """The preset's cells as a table: state, position, last reward, last pass@1, seconds, and why one failed."""
    lines = [f"{'cell':<24} {'state':<12} {'step':>8} {'reward':>8} {'pass@1':>7} {'seconds':>8}"]
    counts: Counter[str] = Counter()
    for cell in grid(preset):
        path = runs_root(runs) / preset / cell.name
        now = state(path)
        counts[now] += 1
        metrics, evals = read_jsonl(path / "metrics.jsonl"), read_jsonl(path / "evals.jsonl")
        line = f"{cell.name:<24} {now:<12}"
        if metrics:
            line += f" {metrics[-1]['step']:>4}/{cell.steps:<3} {metrics[-1]['reward'] or 0:>8.3f}"
            last = [row["correct"] for row in evals if row["step"] == evals[-1]["step"]]
            line += f" {sum(last) / len(last):>7.3f}" if last else f" {'–':>7}"
            line += f" {sum(m['step_time'] for m in metrics):>8.1f}"
        if now == "failed":
            line += f"  {(read_json(path / 'failed.json') or {}).get('error', '')}"
        lines.append(line)
    lines.append(" · ".join(f"{n} {what}" for what, n in sorted(counts.items())))
    return "\n".join(lines)
