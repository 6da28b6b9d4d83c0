"""Problems with verifiable answers: arithmetic or codebooks made here, a JSONL file, or data sets on the Hub."""

import functools
import hashlib
import json
import random
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lrd import ROOT, UserError, codebook, hub
from lrd.arithmetic import story
from lrd.cell import tried
from lrd.verifier import last_boxed


@dataclass(frozen=True)
class Problem:
    """One problem: its text as the prompt template takes it, its gold answer (LaTeX without `$`), its difficulty."""

    id: str
    problem: str
    answer: str
    level: int | None = None  # MATH's 1 to 5; of a chain, its operations
    subject: str | None = None  # one of MATH's seven
    solution: str | None = None  # a completion that is right, where the source has one


def train_pool(source: str, at_least: int = 1) -> tuple[list[Problem], int]:
    """All train problems of a source, in a fixed order, and how many rows were dropped for want of a gold answer.

    Raises `UserError` where the source has fewer than `at_least`, the prompts of a step.
    """
    problems, dropped = _load(source, "train")
    if len(problems) < at_least:
        raise UserError(f"{source!r} has {len(problems)} problems; a step takes {at_least} prompts")
    return problems, dropped


def held_out(source: str, n: int) -> list[Problem]:
    """The fixed evaluation split: all test problems shuffled with `random.Random(0)`, the last `n`.

    Raises `UserError` where the source has fewer than `n`.
    """
    problems, _ = _load(source, "test")
    if len(problems) < n:
        raise UserError(f"{source!r} has {len(problems)} held-out problems; eval_problems asks for {n}")
    random.Random(0).shuffle(problems)
    return problems[-n:]


def prompts_at(step: int, pool: list[Problem], per_step: int, seed: int) -> list[Problem]:
    """The problems of one rollout step: a function of (seed, step) alone, so that all cells of a seed see the same.

    Each pass through the pool is a fresh permutation; a step may straddle two passes.
    """
    chosen = []
    for position in range(step * per_step, (step + 1) * per_step):
        lap, offset = divmod(position, len(pool))
        chosen.append(pool[_permutation(len(pool), f"{seed}/{lap}")[offset]])
    return chosen


@functools.cache
def _permutation(n: int, key: str) -> list[int]:
    return random.Random(f"data order {key}").sample(range(n), n)


# --- the arithmetic chain: `6a*2b-6c+3`, each labelled operation applied in turn modulo 10


@dataclass(frozen=True)
class Chain:
    """A start digit and labelled one-digit operations; the labels keep the place in a solution."""

    start: int
    operations: tuple[tuple[str, int], ...]

    @property
    def text(self) -> str:
        return str(self.start) + "".join(f"{label}{op}{x}" for label, (op, x) in zip("abcdef", self.operations))

    @property
    def values(self) -> list[int]:
        """The running value modulo 10 after each operation."""
        values, value = [], self.start
        for op, x in self.operations:
            value = {"+": value + x, "-": value - x, "*": value * x}[op] % 10
            values.append(value)
        return values

    @property
    def answer(self) -> str:
        return str(self.values[-1])

    @property
    def level(self) -> int:
        return len(self.operations)


def chain(rng: random.Random) -> Chain:
    """One chain of 3 to 6 operations."""
    operations = tuple((rng.choice("+-*"), rng.randrange(10)) for _ in range(rng.randint(3, 6)))
    return Chain(rng.randrange(10), operations)


# --- tasks that are made here


class Task(NamedTuple):
    """`make` gives one problem as an object with `text`, `answer` and `level`; the pools hold more than a cell sees."""

    make: Callable[[random.Random], Any]
    train: int
    test: int


TASKS = {"chain": Task(chain, 4096, 1024), "arithmetic": Task(story, 8192, 2048)}


def stream(task: str, rng: random.Random, *, is_held_out: bool) -> Iterator[Any]:
    """An endless stream of a task's problems from one side of the split, each text at most once."""
    seen = set()
    while True:
        made = TASKS[task].make(rng)
        if in_held_out_tenth(made.text) == is_held_out and made.text not in seen:
            seen.add(made.text)
            yield made


def in_held_out_tenth(text: str) -> bool:
    """Decided by the problem's own hash, so that no two pools can overlap whatever made them."""
    return hashlib.sha256(text.encode()).digest()[0] < 26


def as_problem(made: Any) -> Problem:
    """What the study sees of a problem that was made here."""
    return Problem(made.text, made.text, made.answer, made.level)


# --- sources


def _load(source: str, split: str) -> tuple[list[Problem], int]:
    if book := codebook.named(source):  # all of it is to be remembered: there is nothing held out
        return [Problem(e.text, e.text, e.answer, solution=e.solution) for e in book.entries], 0
    if source in TASKS:
        made = stream(source, random.Random(f"{source} {split}"), is_held_out=split == "test")
        return [as_problem(next(made)) for _ in range(getattr(TASKS[source], split))], 0
    rows = _read_jsonl(source) if source.endswith(".jsonl") else _read_data_set(source, split)
    problems, dropped = [], 0
    for number, row in enumerate(rows):
        problem, answer = row.get("problem"), row.get("answer")
        if not isinstance(problem, str):
            raise UserError(f"row {number} of {source!r} has no text in field 'problem' (it has {', '.join(row)})")
        if answer is None:
            answer = last_boxed(row.get("solution") or "")
        if answer is None or not str(answer).strip():  # `\\boxed{}` can be matched by nothing
            dropped += 1
        else:
            identity = row.get("unique_id", row.get("id", number))
            level = re.search(r"\d+", str(row.get("level", "")))
            subject = row.get("subject", row.get("type"))
            level, solution = int(level[0]) if level else None, row.get("solution") or None
            problems.append(Problem(str(identity), problem, str(answer), level, subject, solution))
    if not problems:
        raise UserError(f"{source!r} holds no problem with an answer or a solution that ends in \\boxed{{}}")
    return problems, dropped


def _read_jsonl(source: str) -> Iterable[dict[str, Any]]:
    path = ROOT / Path(source)
    if not path.is_file():
        raise UserError(f"there is no file {source!r} ({tried(path)})")
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # not splitlines: JSON text may hold a U+2028
    except UnicodeDecodeError as error:
        raise UserError(f"{source!r} is not UTF-8 text: {error}") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"line {number} of {source!r} is not JSON: {error}") from None
        if not isinstance(row, dict):
            raise UserError(f"line {number} of {source!r} is not a JSON object with 'problem' and 'answer'")
        yield row


def _read_data_set(source: str, split: str) -> Iterable[dict[str, Any]]:
    """Every configuration of a data set (hendrycks_math has one a subject), one after the other.

    One on the Hub is read from its snapshot, as a directory of the same layout is. The library's own cache is not used:
    it knows a directory's configurations by their names, and would give the rows of another directory of that name.
    """
    from datasets import disable_progress_bars, get_dataset_config_names, load_dataset

    where = str(hub.data_set(source) if hub.on_hub(source) else ROOT / source)
    if not Path(where).is_dir():
        raise UserError(f"cannot load data set {source!r}: there is no such directory ({tried(Path(where).resolve())})")
    disable_progress_bars()
    try:
        with tempfile.TemporaryDirectory() as cache:
            names = get_dataset_config_names(where)
            return [row for name in names for row in load_dataset(where, name, split=split, cache_dir=cache).to_list()]
    except Exception as error:  # the library raises a dozen kinds
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise UserError(f"cannot load data set {source!r} (split {split!r}): {reason}") from None
