"""The run directory of a cell: what is in it, who owns it, and what state it is in.

Torch-free: the book reads runs on machines that never train.
"""

import contextlib
import errno
import fcntl
import json
import math
import os
import platform
import re
import time
import traceback
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import Any

import filelock

from lrd import UserError
from lrd.cell import Cell, with_defaults
from lrd.names import runs_root
from lrd.runs import sources
from lrd.runs.card import card
from lrd.runs.files import (
    Unreadable,
    append_rows,
    parsed_lines,
    read_json,
    read_jsonl,
    shown_path,
    write_json,
    write_rows,
    write_text,
)
from lrd.runs.provenance import LONGEST, fingerprint, now, provenance
from lrd.runs.redact import redact
from lrd.sources import held_out_sets

CHECKPOINT = "checkpoint/state.safetensors"
LOCK, LAUNCH = "lock", "launch.lock"
STDERR = "stderr.txt"  # what kernels of the cell wrote there
GRACE = 1.0  # seconds to wait for a directory: who asks for its state holds it for a moment
RESERVE = 2**14  # bytes kept for the reason of a failure, so that a full disk can still be named


def check_root(runs: str | Path | None = None) -> None:
    """Raises `UserError` where runs cannot be written; makes nothing."""
    path = runs_root(runs)
    there = next(folder for folder in (path, *path.parents) if os.path.lexists(folder))
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise UserError(
            f"cannot write to {path}: {there} is {'not writable' if there.is_dir() else 'no directory'}; give a "
            f"directory that can be written with --runs"
        )


def few(files: list[str], most: int = 5) -> str:
    """Names in a row, the first few where there are many."""
    return ", ".join(files[:most]) + (f" and {len(files) - most} more" if len(files) > most else "")


class Held(UserError):
    """The cell's directory belongs to another process for now."""


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
        for key, value in vars(self.cell).items():
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
        """Raises `UserError` where the directory holds another cell, or a checkpoint that other code has trained."""
        finished, config = self.finished, read_json(self.path / "config.json")
        if config is None:
            return
        asked, ran = self.cell.config, with_defaults(config)
        if keys := sorted(key for key in asked.keys() | ran.keys() if asked.get(key) != ran.get(key)):
            state = "a finished" if finished else "an unfinished"
            diff = ", ".join(f"{key} = {ran.get(key)!r} (asked for: {asked.get(key)!r})" for key in keys)
            raise UserError(
                f"{self._shown} holds {state} cell of another configuration: {diff}; "
                f"ask for that one, or give another directory with --runs"
            )
        trained = self._provenance().get("run", {}).get("models", {})
        for role, model in self.models.items():
            if model and trained.get(role) and model != trained[role]:
                raise UserError(
                    f"{self._shown} was trained with another {role} than lies in {getattr(self.cell, role)!r} now; "
                    f"move it away, or give another directory with --runs"
                )
        goes_on = self.checkpoint.is_file() and not finished
        if goes_on and not self._other_code and (files := self.changed):
            raise UserError(
                f"{self._shown} was trained to its checkpoint with other code: {few(files)} changed since; put the "
                f"old code back, go on with the new one by --other-code, or give another directory with --runs"
            )

    @property
    def code(self) -> dict[str, str]:
        """The files that the cell's result rests on, as they lie here now, each with its digest."""
        return sources.digests("cell", self.cell.rewards)

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
        self._cut_records(step)
        self._clock = time.monotonic()
        record = provenance(self.cell, self._runs) | {"run": about | {"models": self.models}}
        code: dict[str, Any] = {"files": self.code, "diff": record["git"]["diff"]}
        if own := sources.own(self.cell.rewards):  # which no commit and no diff has
            code["own"] = {path: text.decode(errors="replace") for path, text in own.items() if len(text) <= LONGEST}
        digest = sources.digest(json.dumps(code).encode())
        session = {"started": now(), "from_step": step or 0, "git": record["git"]["sha"], "host": platform.node()}
        record["code"] = before.get("code", {}) | {digest: code}
        # Last, and flat: `lrd status` reads the end alone.
        record["sessions"] = [*before.get("sessions", []), session | {"code": digest}]
        write_json(self.path / "provenance.json", record)

    def _check_records(self, step: int) -> None:
        """A checkpoint says that all before it was recorded; where it was not, the resumed cell would have a hole."""
        rows_at = {"metrics": dict.fromkeys(range(1, step + 1), 1), "completions": {}}
        for name, problems in self._evaluations.items():
            rows_at[name] = dict.fromkeys(range(0, step, self.cell.eval_every), problems)
        for name, expected in rows_at.items():
            rows = list(parsed_lines(self.path / f"{name}.jsonl"))
            wrong = None
            if None in rows[:-1]:  # the last line may have been cut by a kill
                wrong = f": line {rows.index(None) + 1} cannot be read"
            counts = Counter(row["step"] for row in rows if row)
            if holes := [n for n in expected if counts[n] != expected[n]]:
                wrong = wrong or f" is not whole at step {holes[0]}, before the checkpoint (step {step})"
            if wrong:
                raise UserError(f"{self._shown}/{name}.jsonl{wrong}; mend it or move the directory away")

    def _cut_records(self, step: int | None) -> None:
        """Drops the rows after `step`, all where it is None.

        The evaluation at the checkpoint's own step comes before the checkpoint and stays, if it is whole.
        """
        last = -1 if step is None else step
        whole = all(self.evaluated(last, name) == problems for name, problems in self._evaluations.items())
        for name in ("metrics", *self._evaluations, "completions"):
            path, end = self.path / f"{name}.jsonl", last if whole or name not in self._evaluations else last - 1
            if path.is_file():
                write_rows(path, (row for row in read_jsonl(path) if row["step"] <= end))

    def note(self, **about: Any) -> None:
        """Adds to the record of the session under way."""
        record = self._provenance()
        record["sessions"][-1] |= about
        write_json(self.path / "provenance.json", record)

    def evaluated(self, step: int, name: str = "evals") -> int:
        """How many problems of the evaluation at a step are on record."""
        return sum(row["step"] == step for row in read_jsonl(self.path / f"{name}.jsonl"))

    @property
    def _evaluations(self) -> dict[str, int]:
        """The logs of evaluations, and how many problems each holds a step."""
        _, *further = held_out_sets(self.cell.eval_data, self.cell.eval_problems)
        splits = {"evals": self.cell.eval_problems, "validation": self.cell.validation_problems}
        splits |= {"further": sum(each.problems for each in further)}
        return {name: n for name, n in splits.items() if n}

    def last_evaluation(self) -> dict[str, float]:
        """The last evaluation on record in means."""
        rows = read_jsonl(self.path / "evals.jsonl")
        return means([row for row in rows if row["step"] == rows[-1]["step"]])

    def record(self, name: str, rows: Iterable[dict[str, Any]]) -> None:
        """Appends rows to `<name>.jsonl`, on disk when it returns; a number that is not finite becomes null."""
        append_rows(self.path / f"{name}.jsonl", rows)

    def fail(self, error: BaseException, step: int) -> None:
        """Leaves the reason of a failure for `lrd status`."""
        leave_reason(self.path, describe(error), step=step, traceback="".join(traceback.format_exception(error)))

    def finish(self) -> None:
        """Writes the model card and `done.json`, the last file of a finished cell, and gives the directory up.

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
            self.note(ended=now(), seconds=round(seconds, 1), cpu_seconds=round(cpu, 1))
            if self.weights.is_dir():  # in place of the form that PEFT leaves there
                rows = read_jsonl(self.path / "evals.jsonl")
                before = means([row for row in rows if row["step"] == 0])
                text = card(self.cell, before, self.last_evaluation(), self._provenance())
                write_text(self.weights / "README.md", text)
            summary = {"finished": now(), "steps": len(metrics), "seconds": sum(m["step_time"] for m in metrics)}
            write_json(self.path / "done.json", summary)
            (self.path / ".failed.json.part").unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Gives the directory up without a word."""
        self._lock.release()


def means(rows: list[dict[str, Any]]) -> dict[str, float]:
    """pass@1 of an evaluation, and its score where a reward gives one; NaN where there is none."""
    found = {}
    for name, key in (("pass@1", "correct"), ("score", "score")):
        if name == "pass@1" or any(key in row for row in rows):
            known = [value for row in rows if (value := row.get(key)) is not None and value == value]
            found[name] = sum(known) / len(known) if known else math.nan
    return found


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
        executed = json.loads((path / "cell.ipynb").read_text(encoding="utf-8"))
        if "papermill" not in executed["metadata"]:
            return True
        # papermill writes an end also where the kernel was killed; what it had not come to then has no number.
        begun = all(cell["execution_count"] for cell in executed.get("cells", []) if cell["cell_type"] == "code")
        return executed["metadata"]["papermill"]["end_time"] is not None and begun
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
