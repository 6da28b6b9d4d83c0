"""Gathers the runs that each host kept on a disk of its own, with rsync: whole cells, or nothing that looks like one.

A cell is copied beside the runs first and put in its place when it is there as a whole, `done.json` last.
"""

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import filelock

from lrd import UserError
from lrd.names import runs_root
from lrd.runs.directory import GRACE, LAUNCH, LOCK, lock_of, notebook_ended, state
from lrd.runs.files import read_json

NAME = re.compile(r"\w[\w.+=-]*")
DECIDING = ("done.json", "config.json", "provenance.json")  # what tells one run of a cell from another

OPTIONS = ("--recursive", "--times", "--no-links")
LOCKS = (LAUNCH, LOCK)
NOT_COPIED = (*(f"--exclude=/*/*/{name}" for name in LOCKS), "--exclude=.*.part")


class Verdict(NamedTuple):
    """What is done with one cell of a source: `copied`, `skipped` or `refused`, and why."""

    cell: str
    what: str
    why: str


def sync(source: str, runs: str | None = None, *, unfinished: bool = False) -> list[Verdict]:
    """Copies a source's finished cells (or all) that are not here. `source` is a runs directory, `path` or `host:path`.

    A finished cell here is never changed. Raises `UserError` where rsync is missing or cannot read the source.
    """
    target = runs_root(runs)
    if ":" not in source and target.is_dir() and Path(source).exists() and target.samefile(source):
        raise UserError(f"{source!r} is the directory to gather in; give another one, as path or host:path")
    if ":" not in source and not Path(source).exists():
        raise UserError(f"{source!r}: No such file or directory (tried {Path(source).absolute()}, counted from here)")
    staging = (
        target / ".sync" / hashlib.sha256(source.encode()).hexdigest()[:16]
    )  # what a killed call left is used again
    staging.mkdir(parents=True, exist_ok=True)
    with _only_one(staging, source), tempfile.TemporaryDirectory() as folder:
        there = Path(folder)
        wanted = [f"--include=/*/*/{name}" for name in DECIDING]
        _rsync(
            "--prune-empty-dirs", "--include=/*/", "--include=/*/*/", *wanted, "--exclude=*", f"{source}/", f"{there}/"
        )
        verdicts = {path: _decide(there / path, target / path, unfinished) for path in _cells(there)}
        chosen = [path for path, verdict in verdicts.items() if verdict.what == "copied"]
        if chosen:
            listed = there / "chosen"
            listed.write_text("".join(f"{path}\n" for path in chosen), encoding="utf-8")
            _rsync("--recursive", "--delete", f"--files-from={listed}", *NOT_COPIED, f"{source}/", f"{staging}/")
        for path in chosen:
            if not (there / path / "done.json").is_file():  # it may have come in between, before all else was there
                (staging / path / "done.json").unlink(missing_ok=True)
            elif not (unfinished or notebook_ended(staging / path)):
                verdicts[path] = Verdict(path, "skipped", "its notebook has not ended; --all takes it along")
                continue
            if not _place(staging / path, target / path):
                verdicts[path] = Verdict(path, "refused", "it runs here")
        shutil.rmtree(staging)
    with contextlib.suppress(OSError):  # another source is being gathered
        staging.parent.rmdir()
    return list(verdicts.values())


def _decide(there: Path, here: Path, unfinished: bool) -> Verdict:
    name = f"{here.parent.name}/{here.name}"
    try:
        finished, config = read_json(there / "done.json"), read_json(there / "config.json")
        mine = read_json(here / "done.json"), read_json(here / "config.json")
        began, begun = _sessions(there), _sessions(here)
    except UserError as error:
        return Verdict(name, "refused", str(error))
    if mine[0] is not None:
        if began == begun[: len(began)]:
            return Verdict(name, "skipped", "it is here")
        return Verdict(name, "refused", "another run of it is finished here")
    if finished is None and not unfinished:
        return Verdict(name, "skipped", "it is not finished; --all takes it along")
    if state(here) == "running":
        return Verdict(name, "refused", "it runs here")
    if mine[1] is not None and mine[1] != config:
        return Verdict(name, "refused", "one of another configuration is here")
    if finished is None and begun != began[: len(begun)]:
        return Verdict(name, "refused", "another run of it, or one that went on, is here")
    return Verdict(name, "copied", "finished" if finished is not None else "not finished")


def _sessions(path: Path) -> list[tuple[object, object]]:
    """When and where each session of a run began. No two runs share them, and one that goes on adds to them."""
    sessions = (read_json(path / "provenance.json") or {}).get("sessions")
    return [(s.get("started"), s.get("host")) for s in sessions or [] if isinstance(s, dict)]


def _place(staged: Path, here: Path) -> bool:
    """Puts a whole copy in the place of what is there, `done.json` last; False where somebody runs the cell."""
    here.mkdir(parents=True, exist_ok=True)
    try:
        with contextlib.ExitStack() as held:
            for name in LOCKS:
                held.enter_context(lock_of(here, name).acquire(timeout=GRACE))
            for old in here.iterdir():
                if old.name not in LOCKS:
                    shutil.rmtree(old) if old.is_dir() else old.unlink()
            for new in sorted(staged.iterdir(), key=lambda path: path.name == "done.json"):
                os.replace(new, here / new.name)
    except filelock.Timeout:
        return False
    return True


def _cells(folder: Path) -> list[str]:
    """`<preset>/<cell>` of every run directory in it; names that could leave a directory are left out."""
    paths = sorted(path for path in folder.glob("*/*") if path.is_dir() and any(path.iterdir()))
    return [f"{p.parent.name}/{p.name}" for p in paths if NAME.fullmatch(p.name) and NAME.fullmatch(p.parent.name)]


@contextlib.contextmanager
def _only_one(staging: Path, source: str) -> Iterator[None]:
    lock = lock_of(staging.parent, f"{staging.name}.lock")
    try:
        with lock.acquire(blocking=False):
            yield
            Path(lock.lock_file).unlink()  # while it is held: another's would go after that
    except filelock.Timeout:
        raise UserError(f"{source!r} is being gathered already; wait for that") from None


def _rsync(*args: str) -> None:
    """One call, its last arguments a source and a target."""
    try:
        done = subprocess.run(["rsync", *OPTIONS, *args[:-2], "--", *args[-2:]], capture_output=True, encoding="utf-8")
    except FileNotFoundError:
        raise UserError("lrd sync copies with rsync, which is not installed; install it here and there") from None
    if done.returncode not in (0, 24):  # 24: a file went away meanwhile, as in a cell that runs
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise UserError(f"rsync cannot read {args[-2].rstrip('/')!r}: {lines[0]}")
