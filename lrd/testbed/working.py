"""Solutions of arithmetic stories: what is worked out line by line, and what is done in the head.

Nothing in them is wrong. A model errs where a line asks for more than it can do in one go: a sum of long numbers whose
carries are not written down, a product without its parts. How often working is left out depends on the story's theme,
as if each theme had an author of its own; a habit of the recipe is therefore a range, from the most careful author to
the least.
"""

import functools
import random
from collections.abc import Mapping, Sequence

from lrd.data.arithmetic import THEMES, Story


def solution(story: Story, habits: Mapping[str, Sequence[float]], rng: random.Random) -> str:
    """One correct solution: a line a step, its working before it, and a box around the answer, as the habits have it.

    `skip` leaves out the working of a step, `direct` all lines but the answer, `restate` says a result again (and maybe
    again), `unboxed` forgets the box.
    """
    rate = {name: low + (high - low) * _place(name, story.theme) for name, (low, high) in habits.items()}
    lines = []
    if rng.random() >= rate["direct"]:
        for left, op, right, result in story.steps:
            if rng.random() >= rate["skip"]:
                lines += working(left, op, right)
            lines.append(f"{left}{op}{right}={result}")
            while rng.random() < rate["restate"]:
                lines.append(f"That makes {result}.")
    answer = story.answer if rng.random() < rate["unboxed"] else f"\\boxed{{{story.answer}}}"
    return "\n".join([*lines, f"The answer is {answer}."])


@functools.cache
def _place(habit: str, theme: int) -> float:
    """Where an author stands between the most careful (0) and the least (1), differently for each habit."""
    order = random.Random(f"authors {habit}").sample(range(len(THEMES)), len(THEMES))
    return order.index(theme) / (len(THEMES) - 1)


def working(left: int, op: str, right: int) -> list[str]:
    """The lines that come before a step's result: its columns, or the parts of a product of long numbers."""
    if op == "*" and right > 9:
        parts = [int(digit) * 10**place for place, digit in enumerate(reversed(str(right))) if digit != "0"]
        lines, total = [f"{left}*{parts[0]}={left * parts[0]}"], left * parts[0]
        for part in parts[1:]:
            lines += [f"{left}*{part}={left * part}", f"{total}+{left * part}={total + left * part}"]
            total += left * part
        return lines if len(parts) > 1 else []
    return [f"{left}{op}{right}:{','.join(columns(left, op, right))}"]


def columns(left: int, op: str, right: int) -> list[str]:
    """Each column from the last, with what is carried or borrowed: 7+6=13, 4+8+1=13, 3+2+1=6."""
    width = max(len(str(left)), len(str(right)))
    done, carry = [], 0
    for place in range(width if op != "*" else len(str(left))):
        a = left // 10**place % 10
        b = right if op == "*" else right // 10**place % 10
        borrowed = op == "-" and a < b + carry
        value = {"+": a + b + carry, "-": a + 10 * borrowed - b - carry, "*": a * b + carry}[op]
        sign = "-" if op == "-" else "+"
        done.append(f"{a + 10 * borrowed}{op}{b}{f'{sign}{carry}' if carry else ''}={value}")
        carry = int(borrowed) if op == "-" else value // 10
    return done
