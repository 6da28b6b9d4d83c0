"""Word problems of multi-digit arithmetic, in the five levels that MATH has.

A story is a sum of whole numbers and of products, told as things that come and go: `347*28+1205-96` in words. The level
decides how many operations it takes and how long its numbers are.
"""

import random
from dataclasses import dataclass

PLAIN = "Compute"
THEMES = (  # where it plays, what is counted, what it comes in, how it comes, how it goes
    ("market", "apples", "crates", "arrive", "are sold"),
    ("library", "books", "boxes", "are donated", "are lent"),
    ("farm", "eggs", "trays", "are laid", "are eaten"),
    ("bakery", "rolls", "baskets", "are baked", "are served"),
    ("school", "pencils", "packs", "are bought", "are lost"),
    ("factory", "screws", "bags", "are made", "are shipped"),
    ("museum", "coins", "chests", "are found", "are stolen"),
    ("garden", "tulips", "beds", "are planted", "are cut"),
    ("office", "letters", "sacks", "are brought", "are sent"),
    ("kitchen", "plates", "stacks", "are washed", "are broken"),
    ("theater", "seats", "rows", "are added", "are removed"),
    ("harbor", "fish", "nets", "are caught", "are thrown back"),
    (PLAIN,),  # the bare sum
)
LEVELS = {  # digits of each number
    1: ("3+3", "3-3", "3*1"),
    2: ("4+4-3", "4+3*1", "2*2"),
    3: ("3*1+4-3", "3*1+3*1", "2*2+4", "4+4+4-4"),
    4: ("3*2+4", "3*2-3*1", "2*2+2*2", "2*2+3*1-3"),
    5: ("3*2+3*2", "3*2+4-2*2", "4*2-4+3*1", "3*2-3+2*2-3"),
}
Term = tuple[str, tuple[int, ...]]  # sign and factors


@dataclass(frozen=True)
class Story:
    """Signed terms of one or two factors; the running sum never falls below zero."""

    theme: int
    level: int
    shape: str
    terms: tuple[Term, ...]

    @property
    def text(self) -> str:
        """The problem as it is asked."""
        place, *words = THEMES[self.theme]
        if place == PLAIN:
            return f"{PLAIN} {self.expression}."
        things, boxes, come, go = words
        clauses = []
        for number, (sign, factors) in enumerate(self.terms):
            more = "more " if number and sign == "+" else ""
            many = f"{factors[0]} {more}{things}"
            if len(factors) == 2:
                many = f"{factors[0]} {more}{boxes} of {factors[1]} {things}"
            then = f"Then {many} {come if sign == '+' else go}."
            clauses.append(then if number else f"The {place} has {many}.")
        return " ".join([*clauses, f"How many {things} are there in the end?"])

    @property
    def expression(self) -> str:
        """The sum in symbols."""
        return "".join(sign + "*".join(map(str, factors)) for sign, factors in self.terms)[1:]

    @property
    def steps(self) -> list[tuple[int, str, int, int]]:
        """Left, operation, right and result of each step, in the order of the story."""
        steps, total = [], None
        for sign, factors in self.terms:
            value = factors[0]
            if len(factors) == 2:
                value = factors[0] * factors[1]
                steps.append((factors[0], "*", factors[1], value))
            if total is None:
                total = value
            else:
                after = total + value if sign == "+" else total - value
                steps.append((total, sign, value, after))
                total = after
        return steps

    @property
    def answer(self) -> str:
        return str(self.steps[-1][-1])


def story(rng: random.Random) -> Story:
    """One story: all levels, all shapes of a level and all themes are equally likely."""
    level = rng.choice(list(LEVELS))
    shape, theme = rng.choice(LEVELS[level]), rng.randrange(len(THEMES))
    while True:
        made = Story(theme, level, shape, tuple(_terms(shape, rng)))
        if min(result for *_, result in made.steps) >= 0:
            return made


def _terms(shape: str, rng: random.Random) -> list[Term]:
    signed = shape.replace("-", "+-").split("+")
    return [
        ("-" if term.startswith("-") else "+", tuple(_number(int(n), rng) for n in term.strip("-").split("*")))
        for term in signed
    ]


def _number(digits: int, rng: random.Random) -> int:
    return rng.randint(2 if digits == 1 else 10 ** (digits - 1), 10**digits - 1)
