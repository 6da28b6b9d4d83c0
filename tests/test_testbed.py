"""The testbed: its documents are right, its models load like any other, it is deterministic and cached."""

import random
import re

import pytest
import torch
from hypothesis import given, strategies as st

from lrd import testbed
from lrd.models import load_model, load_tokenizer
from lrd.problems import chains
from lrd.rewards.process import PRM
from lrd.testbed import prm as shepherd
from lrd.testbed.corpus import solution, tokenizer as corpus_tokenizer
from lrd.verifier import is_correct

SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 48,
}
HABITS = {"skip": 0.5, "triple": 0.2, "direct": 0.1, "restate": 0.2, "unboxed": 0.2}
MODEL = {
    "shape": SHAPE,
    "train": {"steps": 6, "batch": 8, "learning_rate": 1e-2, "documents": 200},
    "habits": HABITS,
}
RECIPE = {
    "seed": 0,
    "student": MODEL,
    "teacher": MODEL,
    "completer": MODEL,
    "prm": {"solutions": 12, "held_out": 6, "completions": 2, "steps": 4, "batch": 4, "learning_rate": 1e-3},
}


@given(seed=st.integers(0, 10**6), habit=st.sampled_from([*HABITS, None]))
def test_every_solution_of_the_corpus_is_correct_and_survives_its_tokenizer(seed, habit):
    rng = random.Random(seed)
    chain = next(chains(rng, is_held_out=False))
    habits = dict.fromkeys(HABITS, 0.0) | ({habit: 0.9 if habit == "restate" else 1.0} if habit else {})
    text = solution(chain, habits, rng)
    answer = chain.problem.answer
    assert is_correct(text, answer) == (habit != "unboxed")
    assert f"The answer is {answer}." in text.replace("\\boxed{", "").replace("}", "")
    value = str(chain.start)
    for line in text.split("\n")[:-1]:
        head, result = line.split("=")
        if head:  # `a6*2b-6=6`: the label of the first operation stands before the value that it starts from
            assert head[1] == value
            for op, x in re.findall(r"([-+*])(\d)", head):
                value = str({"+": int(value) + int(x), "-": int(value) - int(x), "*": int(value) * int(x)}[op] % 10)
        assert result == value
    words = corpus_tokenizer()
    document = f"Last digit:{chain.text}\n{text}"
    assert words.decode(words(document).input_ids) == document
    assert words.unk_token_id not in words(document).input_ids


def test_without_habits_a_solution_is_one_line_an_operation():
    chain = next(c for c in chains(random.Random(0), is_held_out=False) if c.text.count("*"))
    text = solution(chain, dict.fromkeys(HABITS, 0.0), random.Random(0))
    lines = text.split("\n")
    values = [chain.start, *chain.values]
    expected = [
        f"{label}{value}{op}{x}={after}"
        for label, (op, x), value, after in zip("abcdef", chain.operations, values, values[1:])
    ]
    assert lines == [*expected, f"The answer is \\boxed{{{chain.values[-1]}}}."]


def test_labels_are_the_hard_estimate(make_cell, tokenizer, pretrained, monkeypatch):
    """A step is good if any completion from it reaches the answer; what has ended is judged as it stands."""
    problem = next(chains(random.Random(1), is_held_out=False)).problem
    right = tokenizer(f"\nThe answer is \\boxed{{{problem.answer}}}.").input_ids + [tokenizer.eos_token_id]
    wrong = tokenizer("\nThe answer is 5.").input_ids + [tokenizer.eos_token_id]
    start = tokenizer("a1+1=2\nb2").input_ids
    tails = iter([wrong, right, wrong, wrong])
    monkeypatch.setattr(shepherd, "solve", lambda model, words, starts, t, seed: [next(tails) for _ in starts])
    solutions = [start, [*start, *right]]  # steps: (a1…, b2), and (a1…, b2 ⏎, The answer … <eos>)
    labels = shepherd.label_steps([problem] * 2, [[1]] * 2, solutions[:1], None, tokenizer, 2, 0)
    assert labels == [[True, False]]
    tails = iter([wrong] * 4)
    labels = shepherd.label_steps([problem] * 2, [[1]] * 2, [[], [*start, *right]], None, tokenizer, 2, 0)
    assert labels == [[], [False, False, True]]


def test_labels_stand_at_the_tags(tokenizer, pretrained):
    prm = PRM(pretrained(), tokenizer, "test")
    ids = tokenizer("a1+1=2\n=2\nThe answer is \\boxed{2}.").input_ids + [tokenizer.eos_token_id]
    problem = next(chains(random.Random(1), is_held_out=False)).problem
    [(text, labels)] = shepherd.tagged([problem], [ids], [[True, False, True]], prm)
    assert [mark for mark in labels if mark >= 0] == [1, 0, 1]
    assert [i for i, mark in enumerate(labels) if mark >= 0] == [i for i, t in enumerate(text) if t == prm.tag]


@pytest.fixture
def small_world(tmp_path, monkeypatch):
    monkeypatch.setattr(testbed, "ROOT", tmp_path)
    monkeypatch.setattr(testbed, "recipe", lambda name: RECIPE)
    monkeypatch.setattr(testbed, "PROBLEMS", 8)
    return tmp_path


@pytest.mark.slow
def test_the_testbed_is_deterministic_cached_and_made_of_ordinary_checkpoints(small_world, monkeypatch):
    card = testbed.build("tiny")
    models = small_world / "models" / "tiny"
    files = {p.relative_to(models): p.read_bytes() for p in sorted(models.rglob("*.safetensors"))}
    assert {str(p.parent) for p in files} == {"student", "teacher", "completer", "prm"}
    assert card["models"]["student"].keys() == {"parameters", "seconds", "greedy", "pass@1", "pass@4", "pass@8"}
    assert 0 <= card["models"]["prm"]["held_out_step_accuracy"] <= 1
    assert "held-out step accuracy" in testbed.show("tiny", card) and "pass@4" in testbed.show("tiny", card)

    words = load_tokenizer(str(models / "student"), "student")
    assert words.decode(words("The answer is \\boxed{3}.").input_ids) == "The answer is \\boxed{3}."
    model = load_model(str(models / "prm"), "PRM", "float32", torch.device("cpu"))
    assert 0 <= PRM(model, words, "prm").score(["1+1"], [["a1+1=2\n", "=2"]])[0][1] <= 1

    stamp = (models / "card.json").stat().st_mtime_ns
    assert testbed.build("tiny") == card  # from the cache
    assert (models / "card.json").stat().st_mtime_ns == stamp
    monkeypatch.setattr(testbed, "recipe_hash", lambda name: "another")
    testbed.build("tiny")
    assert {p.relative_to(models): p.read_bytes() for p in sorted(models.rglob("*.safetensors"))} == files
