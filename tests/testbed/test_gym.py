"""Documents of reasoning-gym's problems: whose working they are, their habits, and what training never sees."""

import random

import pytest

from lrd.data import gym
from lrd.testbed.corpus import corpus
from lrd.verifier import is_correct

pytest.importorskip("reasoning_gym", reason="needs the extra `pretrained`")
TASK = "reasoning-gym/gsm_symbolic"
CAREFUL = {"direct": [0.0, 0.0], "skip": [0.0, 0.0], "unboxed": [0.0, 0.0]}


def drawn(n: int) -> list[gym.Made]:
    made = corpus(TASK).made(CAREFUL, random.Random(0))
    return [next(made) for _ in range(n)]


def test_a_careful_authors_solution_is_the_librarys_and_no_held_out_problem_is_drawn():
    for made in drawn(50):
        assert not made.is_held_out
        text = corpus(TASK).solution(made, CAREFUL, random.Random(1))
        assert text == made.solution and is_correct(text, made.answer)


def test_habits_leave_out_lines_and_boxes_and_differ_by_template():
    [made, *_] = drawn(1)
    always = {"direct": [1.0, 1.0], "skip": [0.0, 0.0], "unboxed": [1.0, 1.0]}
    assert corpus(TASK).solution(made, always, random.Random(1)) == f"The answer is {made.answer}."
    habits = {"direct": [0.0, 1.0], "skip": [0.0, 0.0], "unboxed": [0.0, 0.0]}
    shares = {}
    for one in drawn(200):
        texts = [corpus(TASK).solution(one, habits, random.Random(i)) for i in range(50)]
        shares.setdefault(one.template, sum("\n" not in text for text in texts) / 50)
    assert min(shares.values()) < 0.2 and max(shares.values()) > 0.8
