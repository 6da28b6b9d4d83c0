"""A cell's metrics, mirrored to an experiment tracker while it trains: `LRD_TRACKER=tensorboard`, `wandb` or `trackio`.

`metrics.jsonl` stays the truth. The tracker lives in a thread of its own, so that one that raises or hangs costs a
warning and never a step; one that is not installed is refused before the first. An environment variable chooses it,
since it changes nothing of a cell. The run's record says which one took the metrics, and whether to the end.
"""

import hashlib
import importlib.util
import math
import os
import queue
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from lrd import UserError
from lrd.runs.directory import Run
from lrd.runs.files import read_json

PATIENCE = 30.0  # seconds that a tracker has to be through with what it was given, once training is


class Tracker(Protocol):
    """What a tracker has to do."""

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Takes the numbers of one step."""
        ...

    def finish(self) -> None:
        """Hands over what it still holds."""
        ...


class TensorBoard:
    """Event files in the run's own directory: `tensorboard --logdir runs`."""

    def __init__(self, run: Run, first: int):
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run.path / "tensorboard"), purge_step=first)

    def log(self, metrics: dict[str, float], step: int) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def finish(self) -> None:
        self._writer.close()


class Hosted:
    """Weights & Biases, or Trackio, which has the same functions. A resumed cell goes on in its own record there."""

    def __init__(self, module: str, run: Run, **options: Any):
        self._module = importlib.import_module(module)
        about = {"project": "lrd", "group": run.cell.preset, "config": run.cell.config, "resume": "allow"}
        self._module.init(**about, **options)

    def log(self, metrics: dict[str, float], step: int) -> None:
        self._module.log(metrics, step=step)

    def finish(self) -> None:
        self._module.finish()


def wandb(run: Run, first: int) -> Hosted:
    """Weights & Biases; its local files lie in the run's own directory."""
    name = _name(run)
    return Hosted("wandb", run, name=name, id=hashlib.sha256(name.encode()).hexdigest()[:16], dir=str(run.path))


def trackio(run: Run, first: int) -> Hosted:
    """Trackio."""
    return Hosted("trackio", run, name=_name(run))


def _name(run: Run) -> str:
    began = (read_json(run.path / "provenance.json") or {})["sessions"][0]["started"]
    return f"{run.cell.preset}-{run.cell.name}-{began}"


TRACKERS: dict[str, Callable[[Run, int], Tracker]] = {"tensorboard": TensorBoard, "wandb": wandb, "trackio": trackio}
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
