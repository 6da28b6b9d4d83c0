"""Problems: arithmetic, codebooks or reasoning-gym's, a JSONL file, a directory, or data sets on the Hub."""

import functools
import hashlib
import json
import math
import os
import random
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, NamedTuple

from lrd import UserError
from lrd.data import codebook, gym, hub
from lrd.data.arithmetic import story
from lrd.names import GYM, located, on_hub, tried
from lrd.sources import Source, held_out_sets, parts
from lrd.verifier import last_boxed
from lrd.verifier.notation import normal, plain

LARGEST_POOL = 2**22  # problems of a mixture, repeated ones included


@dataclass(frozen=True)
class Problem:
    """One problem: its text as the prompt template takes it, its gold answer (LaTeX without `$`), its difficulty."""

    id: str
    problem: str
    answer: str | None  # None where it has none: rewards that read no gold answer may train on it
    level: int | None = None  # MATH's 1 to 5; of a chain, its operations
    subject: str | None = None  # one of MATH's seven
    solution: str | None = None  # a completion that is right, where the source has one


def train_pool(source: str, at_least: int = 1) -> tuple[list[Problem], int]:
    """All train problems of a source, in a fixed order, and how many rows were dropped for want of a gold answer.

    Where no row has one, all are kept: they are for a reward that needs none.
    Raises `UserError` where the source has fewer than `at_least`, the prompts of a step.
    """
    weights, pools, dropped = zip(*((part.weight, *_load(part, "train")) for part in parts(source)))
    problems = mixed(weights, pools)
    if len(problems) < at_least:
        raise UserError(f"{source!r} has {len(problems)} problems; a step takes {at_least} prompts")
    return problems, sum(dropped)


def mixed(weights: Sequence[float], pools: Sequence[list[Problem]]) -> list[Problem]:
    """One pool in which each source has its share: the smallest where every problem stands once at least.

    A source that has too few for its share is gone through again, from its beginning.
    Raises `UserError` where that takes more than `LARGEST_POOL`.
    """
    size = max(len(pool) / weight for weight, pool in zip(weights, pools))
    if size * sum(weights) > LARGEST_POOL:
        raise UserError(
            f"a mixture with weights {list(weights)} of {', '.join(str(len(pool)) for pool in pools)} problems takes "
            f"{size * sum(weights):.3g} to show each once; give weights that are nearer to the numbers of problems"
        )
    counts = [round(size * weight) for weight in weights]
    return [pool[i % len(pool)] for count, pool in zip(counts, pools) for i in range(count)]


class Asked(NamedTuple):
    """Problems that every evaluation asks."""

    log: str  # of the run's directory
    name: str  # of the held-out set; "" where it has none
    problems: list[Problem]


def asked(eval_data: str, n: int, validation_n: int) -> list[Asked]:
    """What evaluations ask: the set that decides, its validation split, and the further ones. Raises `UserError`."""
    first, *further = held_out_sets(eval_data, n)
    found = [Asked("evals", first.name, held_out(first.source, n))]
    if validation_n:
        found.append(Asked("validation", first.name, validation(first.source, validation_n, n)))
    return found + [Asked("further", each.name, held_out(each.source, each.problems)) for each in further]


def held_out(source: str, n: int) -> list[Problem]:
    """The fixed evaluation split: all test problems shuffled with `random.Random(0)`, the last `n`.

    Of several held-out sets it is that of the first. Raises `UserError` where the source has fewer than `n`.
    """
    problems, _ = _load(parts(source)[0], "test")
    if len(problems) < n:
        raise UserError(
            f"{source!r} has {len(problems)} held-out problems; eval_problems asks for {n} (of a set beyond the first, "
            f"`problems` in its table says how many)"
        )
    random.Random(0).shuffle(problems)
    return problems[-n:]


def validation(source: str, n: int, test: int) -> list[Problem]:
    """The split that rates and steps are chosen by: the first `n` of the shuffle whose last `test` are the test split.

    Raises `UserError` where the two would overlap.
    """
    problems, _ = _load(parts(source)[0], "test") if n else ([], 0)
    if n and len(problems) < n + test:
        raise UserError(
            f"{source!r} has {len(problems)} held-out problems; eval_problems takes {test} of them, which leaves too "
            f"few for validation_problems = {n}"
        )
    random.Random(0).shuffle(problems)
    return problems[:n]


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

GYM_SIZES = {"train": 8192, "test": 2048}


def _of_gym(made: gym.Made, number: int) -> Problem:
    """A template's problems are known by it, and whether training saw it: `unseen-34-17`."""
    kind = "" if made.template is None else f"{'unseen' if made.is_unseen else 'seen'}-{made.template}-"
    subject = None if made.template is None else f"template {made.template}"
    return Problem(f"{kind}{number}", made.text, made.answer, subject=subject, solution=made.solution)


@functools.lru_cache(maxsize=8)
def _made(source: str, split: str) -> list[Problem]:
    """The problems of a source that a program writes: thousands, at up to two milliseconds each."""
    if source in TASKS:
        made = stream(source, random.Random(f"{source} {split}"), is_held_out=split == "test")
        return [as_problem(next(made)) for _ in range(getattr(TASKS[source], split))]
    return [_of_gym(one, number) for number, one in enumerate(gym.pool(source, split, GYM_SIZES[split]))]


def _load(read: Source, split: str) -> tuple[list[Problem], int]:
    source = read.path
    if book := codebook.from_name(source):  # all of it is to be remembered: there is nothing held out
        return [Problem(e.text, e.text, e.answer, solution=e.solution) for e in book.entries], 0
    if source in TASKS or source.startswith(GYM):
        return list(_made(source, split)), 0
    rows = _read_jsonl(source) if source.endswith(".jsonl") else _read_data_set(read, read.split or split)
    asked, gold, shown = read.problem or "problem", read.answer or "answer", read.solution or "solution"
    found: list[tuple[str, Problem]] = []
    for number, (place, row) in enumerate(rows):
        where = f"{place} of {source!r}"
        problem, solution = _text(row, where, asked, numbers=False), _text(row, where, shown, numbers=False)
        lacking = [name for name in (read.answer, read.solution) if name and name not in row]
        if not problem or lacking:
            has = ", ".join(repr(name)[1:-1] for name in row)[:200] or "none"
            missing = lacking[0] if problem else asked
            raise UserError(f"{where} has no text in field {missing!r} (it has {has})")
        answer = _text(row, where, gold) or last_boxed(solution or "") or ""
        ends = re.search(r"####.+\s*\Z", solution or "")  # in a last line: markdown has such headings
        if "####" in (working := answer or (solution if solution and ends else "")):  # GSM8K: behind its working
            working, _, answer = (part.strip() for part in working.rpartition("####"))
            solution = solution if solution and "####" not in solution else gym.worked(working, answer)
        if not re.search(r"\d", answer) and plain(normal(answer[:100])).strip(r"\$").lower() in (
            "",
            "nan",
        ):  # nothing matches it
            answer = None
        identity = _text(row, where, "unique_id", "id") or str(number)
        level = re.search(r"(?<![\d.eE+-])(\d+)(?:\.0*)?(?![\d.eE])", _text(row, where, "level") or "")
        if level and len(level[1]) > 9:
            raise UserError(f"field 'level' of {where} has {len(level[1])} digits; MATH's go from 1 to 5")
        subject = _text(row, where, "subject", "type")
        made = Problem(identity, problem, answer, int(level[1]) if level else None, subject, solution or None)
        found.append((place, made))
    if not found:
        raise UserError(f"{source!r} holds no problem")
    kept = [(place, made) for place, made in found if made.answer is not None] or found
    problems: dict[str, Problem] = {}
    for place, made in kept:
        identity = made.id
        while identity in problems:  # a row is known by its place, for what it says of itself other rows may say too
            identity += f" ({place})"
        problems[identity] = replace(made, id=identity)
    return list(problems.values()), len(found) - len(kept)


class _Number(str):
    """A number as its JSON writes it: `0.00001` read as a float would come back as `1e-05`."""


_KINDS = {list: "a list", dict: "an object", bool: "true or false"}


def _text(row: dict[str, Any], where: str, *names: str, numbers: bool = True) -> str | None:
    """The first of these fields that has a value, as text; None where none has. Blanks, NaN and infinity are no values.

    Raises `UserError` for a value that is neither text nor, if `numbers` may be, a number.
    """
    for name in names:
        value = row.get(name)
        blank = isinstance(value, str) and not value.strip()
        if value is None or blank or (isinstance(value, float) and not math.isfinite(value)):
            continue
        number = isinstance(value, (_Number, int, float, Decimal)) and not isinstance(value, bool)
        if not (numbers if number else isinstance(value, str)):
            said = "a number" if number else _KINDS.get(type(value), type(value).__name__)
            raise UserError(
                f"field {name!r} of {where} is {said}; it has to be text{' or a number' if numbers else ''}"
            )
        text = format(Decimal(str(value)), "f") if isinstance(value, (float, Decimal)) else str(value)
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UserError(f"field {name!r} of {where} has half a character (a lone surrogate)") from None
        return text
    return None


def _read_jsonl(source: str) -> Iterable[tuple[str, dict[str, Any]]]:
    """Each row with its place, `line 1`."""
    path = located(source)
    if not os.path.isfile(path):  # unlike Path's own, no error for a name that is too long
        raise UserError(f"there is no file {source!r} ({tried(source)})")
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # not splitlines: JSON text may hold a U+2028
    except UnicodeDecodeError as error:
        raise UserError(f"{source!r} is not UTF-8 text: {error}") from None
    except OSError as error:  # no permission, say
        raise UserError(f"cannot read {source!r}: {error.strerror}") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = _JSON.decode(line)
        except (ValueError, RecursionError) as error:
            reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
            raise UserError(f"line {number} of {source!r} is not JSON that can be read: {reason}") from None
        if not isinstance(row, dict):
            raise UserError(f"line {number} of {source!r} is not a JSON object with 'problem' and 'answer'")
        yield f"line {number}", row


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError(f"it has field {Counter(name for name, _ in pairs).most_common(1)[0][0][:100]!r} twice")
    return row


_JSON = json.JSONDecoder(
    object_pairs_hook=_unrepeated, parse_float=_Number, parse_int=_Number, parse_constant=lambda _: None
)


def _read_data_set(read: Source, split: str) -> Iterable[tuple[str, dict[str, Any]]]:
    """The named configuration of a data set, or all (hendrycks_math has one a subject): `row 0`, and the row.

    One on the Hub is read from its snapshot, as a directory of the same layout is. The library's own cache is not used:
    it knows a directory's configurations by their names, and would give the rows of another directory of that name.
    """
    source = read.path
    where = str(hub.data_set_folder(source) if on_hub(source) else located(source))
    if not os.path.isdir(where):
        raise UserError(f"cannot load data set {source!r}: there is no such directory ({tried(source)})")
    from datasets import disable_progress_bars, get_dataset_config_names, load_dataset, logging

    disable_progress_bars()
    logging.set_verbosity(logging.CRITICAL)  # it would print what the error says too
    try:
        with tempfile.TemporaryDirectory() as cache:
            names = [read.name] if read.name else get_dataset_config_names(where)
            sets: list[Any] = [load_dataset(where, name, split=split, cache_dir=cache) for name in names]
            return [(f"row {i}", row) for i, row in enumerate(row for rows in sets for row in _rows(rows))]
    except Exception as error:  # the library raises a dozen kinds
        error = error.__cause__ or error  # whose text may be no more than that there is one
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise UserError(f"cannot load data set {source!r} (split {split!r}): {reason}") from None


def _rows(rows: Any) -> list[dict[str, Any]]:
    """As Python has them; a `float32` or `float16` as the shortest decimal that it rounds from, not as a double."""
    import numpy as np

    short = {
        name: its.dtype for name, its in rows.features.items() if getattr(its, "dtype", "") in ("float16", "float32")
    }
    return [
        row | {name: row[name] and float(str(np.dtype(its).type(row[name]))) for name, its in short.items()}
        for row in rows.to_list()
    ]
