"""Problems with verifiable answers: an arithmetic chain made here, a JSONL file, or data sets on the Hub."""

import functools
import hashlib
import json
import random
import re
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrd import ROOT, UserError, hub
from lrd.verifier import last_boxed

CHAIN_POOL = {"train": 4096, "test": 1024}  # problems of the arithmetic chain: more than a cell sees


@dataclass(frozen=True)
class Problem:
    """One problem: its text as the prompt template takes it, its gold answer (LaTeX without `$`), its difficulty."""

    id: str
    problem: str
    answer: str
    level: int | None = None  # MATH's 1 to 5; of a chain, its operations
    subject: str | None = None  # one of MATH's seven


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
    def problem(self) -> Problem:
        return Problem(self.text, self.text, str(self.values[-1]), len(self.operations))

    @property
    def is_held_out(self) -> bool:
        """Decided by the problem's own hash, so that no two pools can overlap whatever made them."""
        return hashlib.sha256(self.text.encode()).digest()[0] < 26  # a tenth of all chains


def chains(rng: random.Random, *, is_held_out: bool) -> Iterator[Chain]:
    """An endless stream of chains of 3 to 6 operations from one side of the split, each text at most once."""
    seen = set()
    while True:
        operations = tuple((rng.choice("+-*"), rng.randrange(10)) for _ in range(rng.randint(3, 6)))
        chain = Chain(rng.randrange(10), operations)
        if chain.is_held_out == is_held_out and chain.text not in seen:
            seen.add(chain.text)
            yield chain


# --- sources


def _load(source: str, split: str) -> tuple[list[Problem], int]:
    if source == "chain":
        stream = chains(random.Random(f"chain {split}"), is_held_out=split == "test")
        return [next(stream).problem for _ in range(CHAIN_POOL[split])], 0
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
            problems.append(Problem(str(identity), problem, str(answer), int(level[0]) if level else None, subject))
    if not problems:
        raise UserError(f"{source!r} holds no problem with an answer or a solution that ends in \\boxed{{}}")
    return problems, dropped


def _read_jsonl(source: str) -> Iterable[dict[str, Any]]:
    path = ROOT / Path(source)
    if not path.is_file():
        raise UserError(f"there is no file {source!r}; a .jsonl source is a path from the project's root")
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
    disable_progress_bars()
    try:
        with tempfile.TemporaryDirectory() as cache:
            names = get_dataset_config_names(where)
            return [row for name in names for row in load_dataset(where, name, split=split, cache_dir=cache).to_list()]
    except Exception as error:  # the library raises a dozen kinds
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise UserError(f"cannot load data set {source!r} (split {split!r}): {reason}") from None
