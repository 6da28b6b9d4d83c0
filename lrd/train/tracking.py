"""A cell's metrics, mirrored to an experiment tracker while it trains: `LRD_TRACKER=tensorboard`, `wandb` or `trackio`.

`metrics.jsonl` stays the truth. The tracker lives in a thread of its own, so that one that raises or hangs costs a
warning and never a step; one that is not installed is refused before the first. An environment variable chooses it,
since it changes nothing of a cell. The run's record says which one took the metrics, and whether to the end.
"""

import functools
import hashlib
import importlib.util
import math
import os
import queue
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from lrd import UserError
from lrd.runs.directory import Run

PATIENCE = 30.0  # seconds that a tracker has to be through with what it was given, once training is


class Tracker(NamedTuple):
    """An open tracker: `log(metrics, step)` takes one step's numbers, `finish()` hands over what it still holds."""

    log: Callable[[dict[str, float], int], object]
    finish: Callable[[], object]


def tensorboard(run: Run, first: int) -> Tracker:
    """Event files in the run's own directory: `tensorboard --logdir runs`."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(run.path / "tensorboard"), purge_step=first)

    def log(metrics: dict[str, float], step: int) -> None:
        for name, value in metrics.items():
            writer.add_scalar(name, value, step)

    return Tracker(log, writer.close)


def hosted(package: str, run: Run, first: int) -> Tracker:
    """Weights & Biases, or Trackio, which has the same functions. A resumed cell goes on in its own record there."""
    module = importlib.import_module(package)
    name = f"{run.cell.preset}-{run.cell.name}-{run.sessions[0]['started']}"
    about = {"project": "lrd", "group": run.cell.preset, "config": run.cell.config, "resume": "allow", "name": name}
    if package == "wandb":  # its local files lie in the run's own directory
        about |= {"id": hashlib.sha256(name.encode()).hexdigest()[:16], "dir": str(run.path)}
    module.init(**about)
    return Tracker(lambda metrics, step: module.log(metrics, step=step), module.finish)


TRACKERS: dict[str, Callable[[Run, int], Tracker]] = {
    "tensorboard": tensorboard,
    "wandb": functools.partial(hosted, "wandb"),
    "trackio": functools.partial(hosted, "trackio"),
}
"""Name → what opens it for a run whose first step to come is given."""

PACKAGES = tuple(TRACKERS)  # each is a package of the same name


def chosen() -> str:
    """The tracker that `LRD_TRACKER` names, or "". Raises `UserError` for one that is unknown or not installed."""
    name = os.environ.get("LRD_TRACKER", "")
    if name and name not in TRACKERS:
        raise UserError(f"LRD_TRACKER is {name!r}; it takes one of {', '.join(TRACKERS)}, or nothing")
    if name in PACKAGES and not _installed(name):
        raise UserError(
            f"LRD_TRACKER={name} needs the package {name}, which is not installed: pip install {name}, or unset "
            f"LRD_TRACKER"
        )
    return name


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ValueError:  # it is loaded, and not from a file
        return True


def tracked(run: Run, steps: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The same steps; each is handed to the tracker that `LRD_TRACKER` names, if it names one."""
    try:
        name = chosen()
    except UserError:
        run.close()
        raise
    if not name:
        yield from steps
        return
    waiting: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    lost: list[str] = []
    worker = threading.Thread(target=_serve, args=(name, run, waiting, lost), daemon=True)  # may hang, and is left
    worker.start()
    try:
        for number, metrics in enumerate(steps):
            if not number:
                run.note(tracker=name)
            waiting.put(metrics)
            yield metrics
    finally:
        waiting.put(None)
        worker.join(PATIENCE)
        if worker.is_alive():
            lost.append(f"it has not finished within {PATIENCE:.0f} s")
            _warn(name, lost[0])
        if lost:
            run.note(tracker=f"{name}, given up: {lost[0]}")


def _serve(name: str, run: Run, waiting: "queue.SimpleQueue[dict[str, Any] | None]", lost: list[str]) -> None:
    """Opens the tracker at the first step and feeds it until the steps end; the first error is its last, and `lost`."""
    tracker = None
    try:
        while (metrics := waiting.get()) is not None:
            step = metrics["step"]
            tracker = tracker or TRACKERS[name](run, step)
            numbers = {k: float(v) for k, v in metrics.items() if isinstance(v, int | float) and math.isfinite(v)}
            tracker.log({k: v for k, v in numbers.items() if k != "step"}, step)
        if tracker:
            tracker.finish()
    except BaseException as error:  # even SystemExit, which some libraries raise for want of a key
        lost.append(f"{type(error).__name__}: {error}")
        _warn(name, lost[0])


def _warn(name: str, why: str) -> None:
    warnings.warn(f"tracker {name!r} is given up ({why}); metrics.jsonl has everything", stacklevel=2)
