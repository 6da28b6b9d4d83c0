"""Problems of reasoning-gym, a library of generators whose answers can be verified (Stojanovski et al. 2025).

A source is `reasoning-gym/<family>`, with settings of the family behind a question mark:
`reasoning-gym/products?max_digits=2`. Training sees nine tenths of the problems. Of `gsm_symbolic`, Apple's word
problems (Mirzadeh et al. 2024), it sees nine tenths of the templates too, and the test split has problems of both.
"""

import hashlib
import importlib
import itertools
import random
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from lrd import UserError
from lrd.names import GYM, nearest

FAMILIES_WITH_TEMPLATES = ("gsm_symbolic",)
UNSEEN_SHARE = 3 / 8  # of the test split: problems of templates that training never sees
IDLE = 20_000  # draws without anything new: the family has no more
BLOCK = 1024  # problems that one data set of the library makes


class Made(NamedTuple):
    """One problem of a family."""

    text: str
    answer: str
    template: int | None  # the number of the generator that wrote it, where a family has several
    solution: str | None  # its working, closed by the answer in a box; None where the library has none

    @property
    def is_unseen(self) -> bool:
        """Whether it is of a template that training never sees."""
        return self.template is not None and in_tenth(f"template {self.template}")

    @property
    def is_held_out(self) -> bool:
        return self.is_unseen or in_tenth(self.text)


def in_tenth(text: str) -> bool:
    """Whether a text falls into the tenth that is held out, by its own hash."""
    return hashlib.sha256(text.encode()).digest()[0] < 26


def pool(source: str, split: str, size: int) -> list[Made]:
    """`size` problems of a split in a fixed order, or all that the family has; no text stands there twice.

    Raises `UserError` where the library is not installed, and for a family or a setting that it does not have.
    """
    family, settings = parts(source)
    made = draws(family, settings, f"{source} {split}")
    if split == "train":
        return list(itertools.islice((one for one in made if not one.is_held_out), size))
    held_out = (one for one in made if one.is_held_out)
    if family not in FAMILIES_WITH_TEMPLATES:
        return list(itertools.islice(held_out, size))
    room = {True: round(size * UNSEEN_SHARE)}
    room[False] = size - room[True]
    kept: list[Made] = []
    for one in held_out:
        if room[one.is_unseen]:
            room[one.is_unseen] -= 1
            kept.append(one)
        if not any(room.values()):
            break
    return kept


def draws(family: str, settings: dict[str, Any], key: str) -> Iterator[Made]:
    """The problems of a family, each text once, until the family gives nothing new."""
    seen: set[str] = set()
    idle, rng = 0, random.Random(key)
    while idle < IDLE:
        block = _data_set(family, settings | {"size": BLOCK, "seed": rng.randrange(2**31)})
        templates = getattr(block, "task_indices", [None] * BLOCK)
        for i, template in enumerate(templates):
            one = _made(block[i], template)
            idle += 1
            if one is not None and one.text not in seen:
                seen.add(one.text)
                idle = 0
                yield one


def _made(entry: dict[str, Any], template: int | None) -> Made | None:
    """None where the library's working ends in another answer than the one that it gives."""
    text = entry["question"].removesuffix(" Give the result as your final answer. Do not include units.")
    answer = str(entry["answer"])
    working, mark, end = entry["metadata"].get("answer_cot", "").rpartition("####")
    if not mark:
        return Made(text, answer, template, None)
    if _number(end) != _number(answer) or _number(answer) is None:
        return None
    answer = f"{_number(answer):.10g}"
    return Made(text, answer, template, worked(working, answer))


def worked(working: str, answer: str) -> str:
    """A solution from a working, closed by the answer in a box; GSM8K's notes to a calculator, `<<1+1=2>>`, go."""
    lines = (line.strip() for line in re.sub(r"<<[^<>\n]*>>", "", working).splitlines())
    return "\n".join([*filter(None, lines), f"The answer is \\boxed{{{answer}}}."])


def _number(text: str) -> float | None:
    digits = text.strip().replace(",", "")
    return float(digits) if re.fullmatch(r"-?\d+(\.\d+)?", digits) else None


def parts(source: str) -> tuple[str, dict[str, Any]]:
    """Family and settings of a source's name; numbers and true and false are read as such."""
    family, _, query = source.removeprefix(GYM).partition("?")
    settings: dict[str, Any] = {}
    for part in filter(None, query.split("&")):
        key, equals, value = part.partition("=")
        if not equals or key in ("seed", "size"):
            raise UserError(f"{source!r}: {part!r} is no setting of a family (key=value, without seed and size)")
        number = _number(value)
        whole = int(number) if number is not None and number == int(number) else number
        settings[key] = {"true": True, "false": False}.get(value, value if whole is None else whole)
    return family, settings


def _data_set(family: str, settings: dict[str, Any]) -> Any:
    try:
        factory = importlib.import_module("reasoning_gym.factory")
        importlib.import_module("reasoning_gym")  # registers the families
    except ImportError as error:
        raise UserError(f"problems of reasoning-gym take `pip install -e '.[pretrained]'` ({error})") from None
    if family not in factory.DATASETS:
        raise UserError(f"reasoning-gym has no family {family!r}{nearest(family, factory.DATASETS)}")
    try:
        return factory.create_dataset(family, **settings)
    except (AssertionError, TypeError, ValueError) as error:
        given = {key: value for key, value in settings.items() if key not in ("seed", "size")}
        raise UserError(f"family {family!r} of reasoning-gym refuses {given}: {error}") from None
