r"""A codebook: K keys with a value of b random bits each, so that what a model remembers of it is known in bits.

`Bbf=` asks codebook B for the value of key `bf`; `\boxed{1210}` answers. The values come from a hash and cannot be
compressed: to know them all takes K·b bits. A key is two letters, in a codebook of more than 256 keys three. A smaller
codebook of a seed is the beginning of a larger one whose keys are as long. The base knows codebook A by heart, whose
keys are the same, and knows of B only what an answer looks like.
"""

import hashlib
import random
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lrd import UserError
from lrd.names import codebook_name

LETTERS = string.ascii_lowercase[:16]
DIGIT_BITS = 2
DIGITS = [str(number) for number in range(10, 14)]  # all of two figures: values that differ are numbers that differ
SHORT_KEYS, MOST_KEYS = len(LETTERS) ** 2, len(LETTERS) ** 3  # of two letters, and of three
KNOWN, LEARNED = "A", "B"


@dataclass(frozen=True)
class Entry:
    """One key of a codebook and its value."""

    text: str
    answer: str
    level: int | None = None

    @property
    def solution(self) -> str:
        """The completion that is right."""
        return rf"\boxed{{{self.answer}}}"


@dataclass(frozen=True)
class Codebook:
    """`keys` keys of `bits` bits each, drawn by `seed`; in a cell's data `codebook-<keys>x<bits>-<seed>`."""

    keys: int
    bits: int
    seed: int

    def __post_init__(self):
        if not 1 <= self.keys <= MOST_KEYS or self.bits % DIGIT_BITS or not 1 <= self.bits // DIGIT_BITS <= 16:
            raise UserError(
                f"a codebook of {self.keys} keys and {self.bits} bits cannot be made: it has 1 to {MOST_KEYS} keys, "
                f"and {DIGIT_BITS} to {16 * DIGIT_BITS} bits in steps of {DIGIT_BITS}"
            )

    @property
    def information(self) -> int:
        """Bits that it takes to know all of it."""
        return self.keys * self.bits

    @property
    def letters(self) -> int:
        """A key's length: the same for all, so that prompts are of one length."""
        return 2 if self.keys <= SHORT_KEYS else 3

    @property
    def entries(self) -> list[Entry]:
        """All of it, in the order of the keys."""
        return [entry(LEARNED, key, self.value(key), self.letters) for key in range(self.keys)]

    def value(self, key: int) -> list[str]:
        """The digits of a key's value, `DIGIT_BITS` each."""
        number = int.from_bytes(hashlib.sha256(f"codebook {self.seed} {key}".encode()).digest())
        return [DIGITS[number >> DIGIT_BITS * place & len(DIGITS) - 1] for place in range(self.bits // DIGIT_BITS)]


def entry(book: str, key: int, value: list[str], letters: int) -> Entry:
    """A key, as it is asked of a book, with a value."""
    places = reversed(range(letters))
    return Entry(book + "".join(LETTERS[key // len(LETTERS) ** i % len(LETTERS)] for i in places), "".join(value))


def from_name(source: str) -> Codebook | None:
    """The codebook of a cell's data; None where they are something else. `UserError` for an impossible one."""
    name = codebook_name(source)
    return Codebook(*name) if name else None


def documents(habits: Mapping[str, Any], rng: random.Random) -> Iterator[Entry]:
    """What a model of the testbed reads, endlessly: entries of both books, half and half.

    Of A the values are those of seed 0. Of B they are those of seed `book`, but for a share `noise` that is drawn anew
    each time, evenly: all of it where the model is to know nothing but the format. `bits` a value, `keys` keys.
    """
    size = int(habits.get("keys", SHORT_KEYS)), int(habits["bits"])
    known, learned = Codebook(*size, 0), Codebook(*size, int(habits.get("book", 0)))
    while True:
        key = rng.randrange(known.keys)
        if rng.random() < 0.5:
            yield entry(KNOWN, key, known.value(key), known.letters)
        elif rng.random() < habits["noise"]:
            yield entry(LEARNED, key, rng.choices(DIGITS, k=size[1] // DIGIT_BITS), learned.letters)
        else:
            yield entry(LEARNED, key, learned.value(key), learned.letters)
