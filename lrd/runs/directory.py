"""The run directory of a cell: what is in it, who owns it, and how it is written so that nothing is lost.

Torch-free: the book reads runs on machines that never train.
"""

import contextlib
import datetime
import errno
import fcntl
import hashlib
import json
import lzma
import math
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import filelock
import psutil

from lrd import ROOT, UserError
from lrd.cell import Cell, on_hub, revision, with_defaults
from lrd.runs import sources
from lrd.runs.redact import redact

CHECKPOINT = "checkpoint/state.safetensors"
LOCK, LAUNCH = "lock", "launch.lock"
STDERR = "stderr.txt"  # what kernels of the cell wrote there
GRACE = 1.0  # seconds to wait for a directory: who asks for its state holds it for a moment
RESERVE = 2**14  # bytes kept for the reason of a failure, so that a full disk can still be named
# A patch that `git apply` takes, whatever the user has configured.
PATCH = "--no-ext-diff --no-textconv --no-color --binary --src-prefix=a/ --dst-prefix=b/".split()
LONGEST = 2**18  # bytes of a file unknown to git that provenance keeps; a longer one is only named


def runs_root(runs: str | Path | None = None) -> Path:
    """`runs/` of the clone, or another directory; relative paths count from the clone, as everything else does."""
    return ROOT / os.path.expanduser(runs or "runs")


def check_root(runs: str | Path | None = None) -> None:
    """Raises `UserError` where runs cannot be written; makes nothing."""
    path = runs_root(runs)
    there = next(folder for folder in (path, *path.parents) if os.path.lexists(folder))
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise UserError(
            f"cannot write to {path}: {there} is {'not writable' if there.is_dir() else 'no directory'}; give a "
            f"directory that can be written with --runs"
        )


def shown_path(path: Path) -> str:
    """A path as messages name it: from the clone where it lies there."""
    return os.path.relpath(path, ROOT) if path.is_relative_to(ROOT) else str(path)


def few(files: list[str], most: int = 5) -> str:
    """Names in a row, the first few where there are many."""
    return ", ".join(files[:most]) + (f" and {len(files) - most} more" if len(files) > most else "")


class Held(UserError):
    """The cell's directory belongs to another process for now."""


class Unreadable(UserError):
    """A record of the cell is not as a run writes it: a matter of this cell alone."""


class Run:
    """One cell's directory, held by this process until `close`, so that no other trains the same cell."""

    def __init__(self, cell: Cell, runs: str | Path | None = None, *, hold: bool = True, other_code: bool = False):
        """Takes the directory, or says in one sentence why it cannot be had (`UserError`); changes nothing finished.

        `other_code` lets a cell go on though the code has changed since its last session.
        """
        self.cell, self._other_code = cell, other_code
        self._runs, self.path = runs, runs_root(runs) / cell.preset / cell.name
        self._clock = time.monotonic()  # of a session; the wall clock may jump
        self._lock = lock_of(self.path)
        for key, value in self.cell.config.items():
            if isinstance(value, str) and redact(value) != value:
                raise UserError(
                    f"setting {key!r} of cell {self.cell.name} holds a secret of the environment, which would be kept "
                    f"with the run: {redact(value)!r}"
                )
        if hold:
            self.hold()

    def hold(self) -> None:
        """Takes the directory, again after a `close`; nothing to do where it is held. Raises `UserError` as above."""
        if self._lock.is_locked:
            return
        self._acquire(self._lock)
        try:
            self.check()
        except UserError:
            self.close()
            raise

    @contextlib.contextmanager
    def launching(self) -> Iterator[None]:
        """Held by who executes a notebook into the directory, from before its kernel starts until it is gone.

        The kernel takes the directory itself, once it is up: it may outlive its launcher, by the second in which
        ipykernel notices, and must keep others out for that long. Two locks, then, and each goes with its process.
        """
        lock = lock_of(self.path, LAUNCH)
        self._acquire(lock)
        try:
            yield
        finally:
            lock.release()

    def _acquire(self, lock: filelock.BaseFileLock) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=GRACE)
        except filelock.Timeout:
            raise Held(
                f"cell {self._shown} is running in another process or is open in this one; wait for it or stop it"
            ) from None
        except OSError as error:
            raise UserError(
                f"cannot write to {self.path}: {error.strerror or error}; give a directory that can be written "
                f"with --runs"
            ) from None

    @property
    def _shown(self) -> str:
        return shown_path(self.path)

    def check(self) -> None:
        """Raises `UserError` where the directory holds another cell than this one, whoever has it now."""
        finished, there = self.finished, read_json(self.path / "config.json")
        if there is None:
            return
        asked, there = self.cell.config, with_defaults(there)
        keys = sorted(key for key in asked.keys() | there.keys() if asked.get(key) != there.get(key))
        if keys:
            state = "a finished" if finished else "an unfinished"
            diff = ", ".join(f"{key} = {there.get(key)!r} (asked for: {asked.get(key)!r})" for key in keys)
            raise UserError(
                f"{self._shown} holds {state} cell of another configuration: {diff}; "
                f"ask for that one, or give another directory with --runs"
            )

        trained = self._provenance().get("run", {}).get("models", {})
        for role, now in self.models.items():
            if now and trained.get(role) and now != trained[role]:
                raise UserError(
                    f"{self._shown} was trained with another {role} than lies in {getattr(self.cell, role)!r} now; "
                    f"move it away, or give another directory with --runs"
                )
        self.check_code()

    def check_code(self) -> None:
        """Raises `UserError` where the cell would go on from a checkpoint that other code has trained."""
        goes_on = self.checkpoint.is_file() and not self.finished
        if goes_on and not self._other_code and (files := self.changed):
            raise UserError(
                f"{self._shown} was trained to its checkpoint with other code: {few(files)} changed since; put the "
                f"old code back, go on with the new one by --other-code, or give another directory with --runs"
            )

    @property
    def code(self) -> dict[str, str]:
        """The files that the cell's result rests on, as they lie here now, each with its digest."""
        return sources.digests("cell", [self.cell.regime])

    @property
    def changed(self) -> list[str]:
        """Files that differ from those of the last session; none where that kept no record of them."""
        record, last = self._provenance(), self.sessions[-1] if self.sessions else {}
        return sources.changed(record.get("code", {}).get(str(last.get("code")), {}).get("files"), self.code)

    @property
    def finished_already(self) -> str:
        """What to say when a finished cell is asked for again."""
        done, last = read_json(self.path / "done.json") or {}, self.sessions[-1] if self.sessions else {}
        return said_finished(self.path, done | {"git": last.get("git")}, self.changed)

    def _provenance(self) -> dict[str, Any]:
        """What provenance.json holds so far. Raises `UserError` where no run can have written it."""
        record = read_json(self.path / "provenance.json") or {}
        run, sessions, code = record.get("run", {}), record.get("sessions", []), record.get("code", {})
        if not (
            isinstance(run, dict)
            and isinstance(run.get("models", {}), dict)
            and isinstance(code, dict)
            and isinstance(sessions, list)
            and all(isinstance(part, dict) for part in [*sessions, *code.values()])
        ):
            raise Unreadable(f"{self._shown}/provenance.json is not as a run writes it; move it away")
        return record

    @property
    def models(self) -> dict[str, str | None]:
        """What tells the cell's models and problems from others of the same name, where they are at hand."""
        roles = ("student", "teacher", "prm", "train_data", "eval_data")
        return {role: fingerprint(getattr(self.cell, role)) for role in roles}

    @property
    def sessions(self) -> list[dict[str, Any]]:
        """Who trained the cell, and when: the first from the start, each other from its `from_step` on."""
        return self._provenance().get("sessions", [])

    @property
    def finished(self) -> bool:
        """Whether the cell is done; then it is only ever read. Raises `UserError` where that cannot be told."""
        return read_json(self.path / "done.json") is not None

    @property
    def checkpoint(self) -> Path:
        """Where the resume state lies, if any."""
        return self.path / CHECKPOINT

    @property
    def weights(self) -> Path:
        """Where the trained weights go: the adapter alone, or the whole student."""
        return self.path / ("adapter" if self.cell.rank else "model")

    def begin(self, *, step: int | None, about: dict[str, Any]) -> None:
        """Records who starts the cell, or resumes it after `step`, and cuts records that lie beyond that point.

        Raises `UserError`, and changes nothing, where records before that point are missing.
        """
        before = self._provenance()
        if step:
            self._check_records(step)
        write_json(self.path / "config.json", self.cell.config)
        (self.path / "failed.json").unlink(missing_ok=True)
        (self.path / ".failed.json.part").write_bytes(os.urandom(RESERVE))  # `write_text` takes its room
        # The evaluation at the checkpoint's own step comes before the checkpoint and stays, if it is whole.
        whole = all(self._evaluated(name, step) == n for name, n in self._evaluations.items())
        for name in ("metrics", *self._evaluations, "completions"):
            path = self.path / f"{name}.jsonl"
            if not path.is_file():
                continue
            kept = [] if step is None else [row for row in read_jsonl(path) if row["step"] <= step]
            if name in self._evaluations and not whole:
                kept = [row for row in kept if row["step"] != step]
            _write(path, "".join(map(_line, kept)))  # as recorded: digits of a number may be some short secret's, too
        self._clock = time.monotonic()
        record = provenance(self.cell, self._runs) | {"run": about | {"models": self.models}}
        code = {"files": self.code, "diff": record["git"]["diff"]}
        digest = sources.digest(json.dumps(code).encode())
        session = {"started": _now(), "from_step": step or 0, "git": record["git"]["sha"], "host": platform.node()}
        record["code"] = before.get("code", {}) | {digest: code}
        # Last, and flat: `lrd status` reads the end alone.
        record["sessions"] = [*before.get("sessions", []), session | {"code": digest}]
        write_json(self.path / "provenance.json", record)

    def note(self, **about: Any) -> None:
        """Adds to the record of the session under way."""
        record = self._provenance()
        record["sessions"][-1] |= about
        write_json(self.path / "provenance.json", record)

    def _check_records(self, step: int) -> None:
        """A checkpoint says that all before it was recorded; where it was not, the resumed cell would have a hole."""
        for name in ("metrics", *self._evaluations, "completions"):
            rows = list(_rows(self.path / f"{name}.jsonl"))
            if None in rows[:-1]:  # the last line may have been cut by a kill
                raise UserError(
                    f"{self._shown}/{name}.jsonl: line {rows.index(None) + 1} cannot be read; mend it or move the "
                    f"directory away"
                )
        wanted = {
            "metrics": dict.fromkeys(range(1, step + 1), 1),
            **{name: dict.fromkeys(range(0, step, self.cell.eval_every), n) for name, n in self._evaluations.items()},
        }
        for name, rows_at in wanted.items():
            there = Counter(row["step"] for row in read_jsonl(self.path / f"{name}.jsonl"))
            if holes := [n for n in rows_at if there[n] != rows_at[n]]:
                raise UserError(
                    f"{self._shown}/{name}.jsonl is not whole at step {holes[0]}, before the checkpoint (step {step}); "
                    f"mend it or move the directory away"
                )

    def evaluated(self, step: int) -> bool:
        """Whether the evaluation at a step is on record."""
        return self._evaluated("evals", step) > 0

    def _evaluated(self, name: str, step: int | None) -> int:
        return sum(row["step"] == step for row in read_jsonl(self.path / f"{name}.jsonl"))

    @property
    def _evaluations(self) -> dict[str, int]:
        """The logs of evaluations, and how many problems each holds a step."""
        splits = {"evals": self.cell.eval_problems, "validation": self.cell.validation_problems}
        return {name: n for name, n in splits.items() if n}

    def last_accuracy(self) -> float:
        """pass@1 of the last evaluation on record; NaN before the first."""
        rows = read_jsonl(self.path / "evals.jsonl")
        last = [row["correct"] for row in rows if row["step"] == rows[-1]["step"]]
        return sum(last) / len(last) if last else math.nan

    def record(self, name: str, rows: Iterable[dict[str, Any]]) -> None:
        """Appends rows to `<name>.jsonl`, all in one write; a number that is not finite becomes null."""
        with (self.path / f"{name}.jsonl").open("a", encoding="utf-8") as file:
            file.write("".join(_line(row) for row in rows))
            file.flush()
            os.fsync(file.fileno())  # a checkpoint that outlives a loss of power says that these lines are there

    def fail(self, error: BaseException, step: int) -> None:
        """Leaves the reason of a failure for `lrd status`."""
        leave_reason(self.path, describe(error), step=step, traceback="".join(traceback.format_exception(error)))

    def finish(self) -> None:
        """Writes `done.json`, the last file of a finished cell, and gives the directory up.

        Raises `RuntimeError` where steps are missing: whoever stopped the training has not finished the cell.
        """
        if not self.finished:
            metrics = read_jsonl(self.path / "metrics.jsonl")
            last = metrics[-1]["step"] if metrics else 0
            if last < self.cell.steps:
                raise RuntimeError(
                    f"{self.cell.name} is at step {last} of {self.cell.steps}; train it to the end first"
                )
            seconds, cpu = time.monotonic() - self._clock, time.process_time()  # `cpu` with the imports
            self.note(ended=_now(), seconds=round(seconds, 1), cpu_seconds=round(cpu, 1))
            summary = {"finished": _now(), "steps": len(metrics), "seconds": sum(m["step_time"] for m in metrics)}
            write_json(self.path / "done.json", summary)
            (self.path / ".failed.json.part").unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Gives the directory up without a word."""
        self._lock.release()


def lock_of(path: Path, name: str = LOCK) -> filelock.BaseFileLock:
    """A lock of a run directory."""
    # One that the operating system drops with its owner, whatever ended it, or none: the library's way out where a
    # file system knows no such lock is a file that a dead owner leaves behind.
    return filelock.FileLock(path / name, fallback_to_soft=False)


def off_grid(below: Path, names: Container[str]) -> list[Path]:
    """Run directories of a preset that are none of its matrix's cells: another seed or rank, asked for by hand."""
    marks = ("config.json", "failed.json", LAUNCH)  # of a cell; a study has none of them
    there: list[str] = []
    with contextlib.suppress(OSError):
        there = sorted(os.listdir(below))
    found = [below / name for name in there if name not in names]
    return [path for path in found if any((path / m).is_file() for m in marks) and state(path) != "absent"]


def warned(path: Path) -> list[str]:
    """What kernels of a cell said on stderr, each line once, without progress, without where in the code it stands."""
    text = ""
    with contextlib.suppress(OSError):
        text = (path / STDERR).read_text(errors="replace", encoding="utf-8")
    lines = (line.rpartition("\r")[2] for line in text.split("\n"))
    said = [line for line in lines if re.match(r"\S", line) and not re.search(r"\d%\||\bINFO\b", line)]
    return list(dict.fromkeys(re.sub(r"^\S+:\d+: (?=\w+Warning: )", "", line) for line in said))


def state(path: Path) -> str:
    """`absent`, `running`, `interrupted`, `failed` or `finished`, from the files and the locks alone."""
    try:
        if read_json(path / "done.json") is not None:
            return "finished"
    except UserError:  # nobody can tell: `reason` names the file
        return "failed"
    if any(_is_held(path / name) for name in (LAUNCH, LOCK)):
        return "running"
    if (path / "failed.json").is_file():
        return "failed"
    return "interrupted" if (path / "config.json").is_file() else "absent"


def _is_held(lock: Path) -> bool:
    """Whether somebody owns a lock. Asked with a shared one: who asks meanwhile is no owner, and need not be able to
    write."""
    try:
        file = lock.open("rb")
    except OSError:  # there is none, or it is not this user's to read
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno in (errno.EAGAIN, errno.EACCES)  # another: nobody can lock anything here
    return False


def notebook_ended(path: Path) -> bool:
    """Whether the executed notebook is whole: it goes on after training has ended, and may be killed then.

    So is one that was run by hand, and none at all: the cell was trained elsewhere.
    """
    try:
        about = json.loads((path / "cell.ipynb").read_text(encoding="utf-8"))["metadata"]
        return about.get("papermill", {"end_time": "by hand"})["end_time"] is not None
    except FileNotFoundError:
        return True
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OSError):
        return False


def said_finished(path: Path, done: dict[str, Any], changed: list[str]) -> str:
    """What to say when something finished is asked for again: since when, at which commit, where, and what changed."""
    day, commit = str(done.get("finished", ""))[:10] or "an unknown day", str(done.get("git") or "")[:12]
    since = f" ({few(changed)} changed since)" if changed else ""
    return f"finished already on {day} at {commit or 'an unknown commit'}, nothing was run: {shown_path(path)}{since}"


def leave_reason(path: Path, error: str, **about: Any) -> None:
    """Writes `failed.json`, where there is room for it: who calls this has the error to raise or to return."""
    with contextlib.suppress(OSError):
        write_json(path / "failed.json", {"error": error} | about)


def reason(path: Path) -> str:
    """Why the cell of a run directory failed, in one line; empty where it did not."""
    try:
        read_json(path / "done.json")
        return str((read_json(path / "failed.json") or {}).get("error", ""))
    except UserError as error:
        return str(error)


def trace(path: Path) -> str:
    """The traceback that a failed cell left; empty where it left none."""
    with contextlib.suppress(UserError):  # `reason` says what is wrong with it
        return str((read_json(path / "failed.json") or {}).get("traceback", ""))
    return ""


def fingerprint(name: str) -> str | None:
    """Of a checkpoint below the project: a hash of its configuration and of size and both ends of its weights.

    Of a file of problems: a hash. Of a model of the Hub: the revision in the local cache. None where there is none.
    """
    if name.endswith(".jsonl"):
        return hashlib.sha256((ROOT / name).read_bytes()).hexdigest()[:16] if (ROOT / name).is_file() else None
    if on_hub(name):
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(name, "config.json", revision=revision(name))
        return Path(cached).parent.name if isinstance(cached, str) else None
    folder, digest = ROOT / name, hashlib.sha256()
    if not (folder / "config.json").is_file():
        return None
    digest.update((folder / "config.json").read_bytes())
    for path in sorted(folder.glob("*.safetensors")):
        size = path.stat().st_size
        with path.open("rb") as file:
            digest.update(f"{path.name} {size}".encode() + file.read(2**20))
            file.seek(max(0, size - 2**20))
            digest.update(file.read())
    return digest.hexdigest()[:16]


LESS_MEMORY = (
    "take a host with more, run fewer cells at a time (--jobs, --gpus-per-cell 1), or ask for less with --set and a "
    "directory of its own (--runs): eval_batch, samples_per_prompt, max_completion_tokens"
)


def describe(error: BaseException) -> str:
    """An error in one line; where memory ran out, in those words and with what to change."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, MemoryError) or re.search(r"out ?of ?memory|can(no|')t allocate memory", text, re.IGNORECASE):
        return f"out of memory: {LESS_MEMORY} ({text.splitlines()[0]})"
    return text.splitlines()[0]


def provenance(cell: Cell, runs: str | Path | None = None) -> dict[str, Any]:
    """Everything that a rerun needs to know: code, versions, hardware, command, seeds. No environment variables."""
    return {
        "command": _command(cell, runs),
        "git": {"sha": _git("rev-parse", "HEAD")} | _changes(),
        "python": platform.python_version(),
        "packages": {d.name: d.version for d in sorted(metadata.distributions(), key=lambda d: d.name.lower())},
        "hardware": {
            "platform": platform.platform(),
            "cpu": _cpu_model(),
            "cores": os.cpu_count(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
            "gpus": gpus(),
        },
        "seed": cell.seed,
    }


def _command(cell: Cell, runs: str | Path | None) -> str:
    """The command line of this very cell, settings that differ from its preset's included, and where it lies."""
    words = ["lrd", "cell", cell.preset, "--regime", cell.regime, "--rank", str(cell.rank or "full")]
    words += ["--seed", str(cell.seed)]
    with contextlib.suppress(UserError):  # of a cell that was made by hand, without a preset
        usual = Cell.load(cell.preset, regime=cell.regime, rank=cell.rank, seed=cell.seed, **cell.point).config
        changed = {key: value for key, value in cell.config.items() if value != usual[key]}
        for key, value in (cell.point | changed).items():
            words += ["--set", f"{key}={json.dumps(value, ensure_ascii=False)}"]  # JSON values are TOML values
    return shlex.join(words + (["--runs", shown_path(runs_root(runs))] if runs_root(runs) != runs_root() else []))


def write_text(path: Path, text: str) -> None:
    """Whole or not at all, and without secrets."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, redact(text))


def _write(path: Path, text: str) -> None:
    """Written beside the file, flushed to disk, then put in its place."""
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
    replace(part, path)


def replace(part: Path, path: Path) -> None:
    """Puts a file in the place of another so that a loss of power, too, leaves one of them whole."""
    _flush(part)
    part.replace(path)
    with contextlib.suppress(OSError):  # not every file system flushes directories
        _flush(path.parent)


def _flush(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def write_json(path: Path, value: Any) -> None:
    """Atomically."""
    write_text(path, json.dumps(_finite(value), indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """The file's object, or None where there is no file. Raises `Unreadable` where it does not hold one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, RecursionError, OSError) as error:
        raise Unreadable(f"{path.parent.name}/{path.name} is not readable JSON ({error}); move it away") from None
    if not isinstance(value, dict):
        raise Unreadable(f"{path.parent.name}/{path.name} is not a JSON object; move it away")
    return value


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Every whole line; a last line that was cut by a kill is left out, as are lines that are no JSON object."""
    return [row for row in _rows(path) if row is not None]


def broken_lines(path: Path) -> list[int]:
    """Numbers of the lines that `read_jsonl` leaves out."""
    return [number for number, row in enumerate(_rows(path), 1) if row is None]


def read_log(path: Path) -> bytes:
    """A log as it was written, from `<name>.xz` where it was packed. Raises `OSError` where it is neither."""
    packed = path.with_name(f"{path.name}.xz")
    return lzma.decompress(packed.read_bytes()) if packed.is_file() and not path.is_file() else path.read_bytes()


def pack(path: Path) -> None:
    """Compresses the logs of a finished cell's directory, for a repository to keep: to a thirtieth."""
    if not (path / "done.json").is_file():
        raise UserError(f"{path.parent.name}/{path.name} is not finished, and only what is finished is packed")
    for log in path.glob("*.jsonl"):
        compress(log)


def compress(path: Path) -> Path:
    """Puts `<name>.xz` in a file's place, and returns its path; `read_log` reads either."""
    part, packed = path.with_name(f".{path.name}.part"), path.with_name(f"{path.name}.xz")
    part.write_bytes(lzma.compress(path.read_bytes(), preset=9))
    replace(part, packed)
    path.unlink()
    return packed


def _rows(path: Path) -> Iterator[dict[str, Any] | None]:
    """A row for each line, None for one that is no JSON object with a step."""
    text = ""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError, lzma.LZMAError):
        text = read_log(path).decode(errors="replace")
    for line in text.removesuffix("\n").split("\n") if text else []:  # not splitlines: text may hold a U+2028
        row = None
        with contextlib.suppress(ValueError, RecursionError):
            row = json.loads(line)
        yield row if isinstance(row, dict) and type(row.get("step")) is int else None


def _line(row: dict[str, Any]) -> str:
    return json.dumps(_finite(row), ensure_ascii=False) + "\n"


def _finite(value: Any) -> Any:
    """JSON knows no NaN and no infinity: null says that there was no number."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    return [_finite(v) for v in value] if isinstance(value, list | tuple) else value


def stamp() -> dict[str, str | None]:
    """When and at which commit something is finished, if that is now."""
    return {"finished": _now(), "git": _git("rev-parse", "HEAD")}


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _git(*args: str, **environment: str) -> str | None:
    """What git answers about the clone; None where there is no git, or the clone is no repository.

    Neither a repository that the clone lies in nor one that GIT_DIR names is asked in its place.
    """
    others = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    ours = {"GIT_DIR": str(ROOT / ".git"), "GIT_WORK_TREE": str(ROOT)} | environment
    try:
        done = subprocess.run(["git", *args], cwd=ROOT, env=others | ours, capture_output=True)
    except OSError:  # no git here
        return None
    # Decoded here, since a pipe of text would turn the \r\n of a diff into \n.
    return done.stdout.decode(errors="replace").removesuffix("\n") if done.returncode == 0 else None


def _changes() -> dict[str, Any]:
    """How the working tree differs from its commit: a diff for `git apply`.

    Code, presets and notebooks that git does not know yet are part of it, since a new reward is such a file; of those
    too long for it, `untracked` gives the size in bytes.
    """
    unknown = _git("ls-files", "-z", "--others", "--exclude-standard", "--", "lrd", "notebooks") or ""
    sizes = {name: (ROOT / name).stat().st_size for name in unknown.split("\0") if (ROOT / name).is_file()}
    short = [name for name, size in sizes.items() if size <= LONGEST]
    with tempfile.TemporaryDirectory() as folder:
        index = f"{folder}/index"  # git's own stays as it is
        with contextlib.suppress(OSError):
            shutil.copy(ROOT / (_git("rev-parse", "--git-path", "index") or ""), index)
        if short:
            _git("add", "--intent-to-add", "--", *short, GIT_INDEX_FILE=index)
        diff = _git("diff", *PATCH, "HEAD", "--", ".", ":!runs", GIT_INDEX_FILE=index)
    return {"diff": diff and diff + "\n", "untracked": {k: n for k, n in sizes.items() if k not in short}}


def gpus() -> list[str]:
    """Name, memory and driver of each NVIDIA GPU, in nvidia-smi's words; empty where there is none."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(query, capture_output=True, encoding="utf-8", timeout=30)
        return done.stdout.splitlines() if done.returncode == 0 else []
    return []


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or sys.platform
