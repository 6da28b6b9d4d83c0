"""The testbed: its documents are right, its models load like any other, it is deterministic and cached."""

import contextlib
import random
import re
import shutil
import tomllib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, strategies as st

from lrd import UserError
from lrd.cell import grid
from lrd.data import codebook
from lrd.data.arithmetic import THEMES, Story
from lrd.data.problems import as_problem, stream
from lrd.models.loading import load_model, load_tokenizer
from lrd.rewards.process import PRM, read
from lrd.testbed import build, kept, pretrain, prm as shepherd, recipe, working
from lrd.testbed.corpus import CORPORA, tokenizer as corpus_tokenizer
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
    "task": "chain",
    "seed": 0,
    "student": MODEL,
    "teacher": MODEL,
    "completer": MODEL,
    "prm": {"solutions": 12, "held_out": 6, "completions": 2, "rows": 16}
    | {
        "steps": 4,
        "batch": 4,
        "learning_rate": 1e-3,
    },
}


@given(seed=st.integers(0, 10**6), habit=st.sampled_from([*HABITS, None]))
def test_every_solution_of_the_corpus_is_correct_and_survives_its_tokenizer(seed, habit):
    rng = random.Random(seed)
    chain = next(stream("chain", rng, is_held_out=False))
    habits = dict.fromkeys(HABITS, 0.0) | ({habit: 0.9 if habit == "restate" else 1.0} if habit else {})
    text = CORPORA["chain"].solution(chain, habits, rng)
    answer = chain.answer
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
    chain = next(c for c in stream("chain", random.Random(0), is_held_out=False) if c.text.count("*"))
    text = CORPORA["chain"].solution(chain, dict.fromkeys(HABITS, 0.0), random.Random(0))
    lines = text.split("\n")
    values = [chain.start, *chain.values]
    expected = [
        f"{label}{value}{op}{x}={after}"
        for label, (op, x), value, after in zip("abcdef", chain.operations, values, values[1:])
    ]
    assert lines == [*expected, f"The answer is \\boxed{{{chain.values[-1]}}}."]


# --- solutions of arithmetic stories


@pytest.mark.parametrize(
    "left, op, right, lines",
    [
        (347, "+", 286, ["347+286:7+6=13,4+8+1=13,3+2+1=6"]),
        (95, "+", 8, ["95+8:5+8=13,9+0+1=10"]),
        (633, "-", 286, ["633-286:13-6=7,13-8-1=4,6-2-1=3"]),
        (1000, "-", 1, ["1000-1:10-1=9,10-0-1=9,10-0-1=9,1-0-1=0"]),
        (347, "*", 8, ["347*8:7*8=56,4*8+5=37,3*8+3=27"]),
        (347, "*", 28, ["347*8=2776", "347*20=6940", "2776+6940=9716"]),
        (347, "*", 20, []),  # nothing to take apart
        (12, "*", 305, ["12*5=60", "12*300=3600", "60+3600=3660"]),
    ],
)
def test_workings_by_hand(left, op, right, lines):
    assert working.working(left, op, right) == lines


@given(seed=st.integers(0, 10**6), careful=st.booleans())
def test_every_line_of_a_story_is_true_and_survives_its_tokenizer(seed, careful):
    rng = random.Random(seed)
    made = next(stream("arithmetic", rng, is_held_out=False))
    habits = {"skip": [0.0, 0.9], "direct": [0.0, 0.5], "restate": [0.1, 0.3], "unboxed": [0.0, 0.4]}
    if careful:
        habits = {key: [0.0, 0.0] for key in habits}
    text = CORPORA["arithmetic"].solution(made, habits, rng)
    *lines, last = text.split("\n")
    assert last in (f"The answer is \\boxed{{{made.answer}}}.", f"The answer is {made.answer}.")
    for line in lines:
        for equation in re.findall(r"[-+*\d]+=\d+", line):
            left, right = equation.split("=")
            assert eval(left) == int(right)
    results = [f"{left}{op}{right}={result}" for left, op, right, result in made.steps]
    if careful:
        assert is_correct(text, made.answer) and [line for line in lines if line in results] == results
    words = corpus_tokenizer("arithmetic")
    document = f"Problem: {made.text}\nSolution:\n{text}"
    ids = words(document).input_ids
    assert words.decode(ids) == document and words.unk_token_id not in ids
    assert len(words(text).input_ids) < 384  # the cap of preset small
    assert words.unk_token_id not in read(made.text, text.split("\n"), words)  # as the PRM reads it


def test_authors_have_habits_of_their_own():
    """The most careful author works everything out, the least careful nothing; the others lie between."""
    habits = {"skip": [0.0, 1.0], "direct": [0.0, 0.0], "restate": [0.0, 0.0], "unboxed": [0.0, 0.0]}
    shares, rng = {}, random.Random(0)
    for theme in range(len(THEMES)):
        made = Story(theme, 1, "3+3", (("+", (347,)), ("+", (286,))))
        texts = [CORPORA["arithmetic"].solution(made, habits, rng) for _ in range(400)]
        shares[theme] = sum(":" in text for text in texts) / 400
    assert min(shares.values()) == 0 and max(shares.values()) == 1
    assert all(abs(share - i / 12) < 0.08 for i, share in enumerate(sorted(shares.values())))  # 3 standard errors


def test_batches_drawn_together_are_sorted_among_themselves():
    rows = [[0] * n for n in range(100)]
    alone = list(pretrain.batches(rows, 5, 4, random.Random(3)))
    rng = random.Random(3)
    assert alone == [rng.sample(rows, 5) for _ in range(4)]
    together = list(pretrain.batches(rows, 5, 6, random.Random(3), 4))
    assert [len(batch) for batch in together] == [5] * 6
    spans = sorted((len(batch[0]), len(batch[-1])) for batch in together[:4])
    assert all(a[1] < b[0] for a, b in pairwise(spans))
    assert len({len(row) for batch in together[:4] for row in batch}) == 20


def test_labels_are_the_hard_estimate(tokenizer):
    """A step is good if any completion from it reaches the answer; what has ended is judged as it stands."""
    problem = as_problem(next(stream("chain", random.Random(1), is_held_out=False)))
    right = tokenizer(f"\nThe answer is \\boxed{{{problem.answer}}}.").input_ids + [tokenizer.eos_token_id]
    wrong = tokenizer("\nThe answer is 5.").input_ids + [tokenizer.eos_token_id]
    start = tokenizer("a1+1=2\nb2").input_ids
    tails = iter([wrong, right, wrong, wrong])

    def complete(starts):
        return [next(tails) for _ in starts]

    solutions = [start, [*start, *right]]  # steps: (a1…, b2), and (a1…, b2 ⏎, The answer … <eos>)
    labels = shepherd.label_steps([problem] * 2, [[1]] * 2, solutions[:1], complete, tokenizer, 2)
    assert labels == [[True, False]]
    tails = iter([wrong] * 4)
    labels = shepherd.label_steps([problem] * 2, [[1]] * 2, [[], [*start, *right]], complete, tokenizer, 2)
    assert labels == [[], [False, False, True]]


def test_labels_stand_at_the_tags(tokenizer, pretrained):
    prm = PRM(pretrained(), tokenizer, "test")
    ids = tokenizer("a1+1=2\n=2\nThe answer is \\boxed{2}.").input_ids + [tokenizer.eos_token_id]
    problem = as_problem(next(stream("chain", random.Random(1), is_held_out=False)))
    [(text, labels)] = shepherd.tagged([problem], [ids], [[True, False, True]], prm)
    assert [mark for mark in labels if mark >= 0] == [1, 0, 1]
    assert [i for i, mark in enumerate(labels) if mark >= 0] == [i for i, t in enumerate(text) if t == prm.tag]


def test_a_testbed_for_a_gpu_says_so_where_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "ROOT", tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="testbed 'small' is for a GPU, and PyTorch finds none here"):
        build.build("small")


def test_the_recipes_can_be_read():
    for name in ("tiny", "small"):
        what = recipe.load(name)
        assert build._cell(name).train_data == what["task"]
        for role in ("student", "teacher", "completer"):
            train = what[role]["train"]
            assert train["batch"] * train.get("sorted_batches", 1) <= train["documents"]


@pytest.mark.parametrize("name", ["law", "law-small"])
def test_the_recipes_of_codebooks_can_be_read(name):
    """They read all keys that the preset's cells ask for, and their teachers the books that are to be distilled."""
    what = recipe.load(name)
    for data, model in {(cell.train_data, cell.teacher) for cell in grid(name)}:
        wanted, teacher = codebook.from_name(data), what[model.rsplit("/", 1)[1]]
        assert wanted and teacher["habits"]["book"] == wanted.seed and what["student"]["habits"]["noise"] == 1
        read = codebook.from_name(teacher["data"])
        assert read and read.entries[: wanted.keys] == wanted.entries
        assert {part["habits"].get("keys", 256) for part in (what["student"], teacher)} == {read.keys}


@contextlib.contextmanager
def same_workers() -> Iterator[None]:
    """Builds go on in the processes of the first: what takes longest about a small model is to load torch."""
    pools: list[ProcessPoolExecutor] = []

    def pool(*args, **kwargs):
        pools[:] = pools or [ProcessPoolExecutor(*args, **kwargs)]
        return contextlib.nullcontext(pools[0])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "ProcessPoolExecutor", pool)
        yield
    for each in pools:
        each.shutdown()


@pytest.fixture(scope="module")
def workers() -> Iterator[None]:
    with same_workers():
        yield


@pytest.fixture
def small_world(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "ROOT", tmp_path)
    monkeypatch.setattr(recipe, "load", lambda name: RECIPE)
    monkeypatch.setattr(build, "PROBLEMS", 8)
    return tmp_path


@pytest.mark.slow
def test_a_codebooks_world_has_teachers_and_no_prm(small_world, workers, monkeypatch):
    made = tomllib.loads((recipe.HERE / "law-small.toml").read_text())
    shrunken = {name: MODEL[name] for name in ("shape", "train")}
    made |= {role: made[role] | shrunken for role in ("student", "teacher-1", "teacher-2")}
    monkeypatch.setattr(recipe, "load", lambda name: made)
    card = build.build("law")  # on the preset that asks for no GPU
    assert card["models"].keys() == {"student", "teacher-1", "teacher-2"} and "greedy" in card["models"]["teacher-1"]
    found = {path.parent.name for path in (small_world / "models" / "law").rglob("*.safetensors")}
    assert found == card["models"].keys()


@pytest.mark.slow
def test_the_testbed_is_deterministic_cached_and_made_of_ordinary_checkpoints(small_world, workers, monkeypatch):
    card = build.build("tiny")
    models = small_world / "models" / "tiny"
    files = {p.relative_to(models): p.read_bytes() for p in sorted(models.rglob("*.safetensors"))}
    assert {str(p.parent) for p in files} == {"student", "teacher", "completer", "prm"}
    scores = {"greedy", "pass@1", "pass@4", "pass@8"}
    assert card["models"]["student"].keys() == scores | {"parameters", "seconds", "fingerprint"}
    assert 0 <= card["models"]["prm"]["held_out_step_accuracy"] <= 1
    assert "held-out step accuracy" in build.show("tiny", card) and "pass@4" in build.show("tiny", card)

    words = load_tokenizer(str(models / "student"), "student")
    assert words.decode(words("The answer is \\boxed{3}.").input_ids) == "The answer is \\boxed{3}."
    model = load_model(str(models / "prm"), "PRM", "float32", torch.device("cpu"))
    assert 0 <= PRM(model, words, "prm").score(["1+1"], [["a1+1=2\n", "=2"]])[0][1] <= 1

    stamp = (models / "card.json").stat().st_mtime_ns
    assert build.build("tiny") == card  # from the cache
    assert (models / "card.json").stat().st_mtime_ns == stamp
    monkeypatch.setattr(recipe, "digest", lambda *_: "another")
    build.build("tiny")
    assert {p.relative_to(models): p.read_bytes() for p in sorted(models.rglob("*.safetensors"))} == files


@pytest.mark.slow
def test_a_recipe_with_trainings_makes_a_world_a_seed_and_each_is_that_of_its_seed_alone(
    small_world, monkeypatch, capfd
):
    several = {key: value for key, value in RECIPE.items() if key != "seed"} | {"trainings": [1, 2]}
    monkeypatch.setattr(recipe, "load", lambda name: several)
    with same_workers():  # of its own: `capfd` hears those that are started under it
        card, models = build.build("tiny"), small_world / "models" / "tiny"
        weights = {seed: (models / f"{seed}/student/model.safetensors").read_bytes() for seed in (1, 2)}
        monkeypatch.setattr(recipe, "load", lambda name: RECIPE | {"seed": 2})
        alone = build.build("tiny")["models"]
    assert card["models"].keys() == {
        f"{seed}/{role}" for seed in (1, 2) for role in ("student", "teacher", "completer", "prm")
    }
    assert "student of seed 2: step 6 of 6" in capfd.readouterr().out
    assert weights[1] != weights[2]
    assert (models / "student/model.safetensors").read_bytes() == weights[2]
    assert [alone[role]["fingerprint"] for role in ("student", "teacher", "prm")] == [
        card["models"][f"2/{role}"]["fingerprint"] for role in ("student", "teacher", "prm")
    ]


@pytest.mark.slow
def test_a_recipe_can_begin_from_a_pretrained_model(small_world, workers, monkeypatch, checkpoint):
    """Its models are adapters on it, or trained in full, and the same again on every build."""
    full = {key: MODEL[key] for key in ("train", "habits")}
    begun = RECIPE | {"start": checkpoint("llama"), "teacher": full, "prm": RECIPE["prm"] | {"adapter": 2}}
    begun |= {"completer": full | {"adapter": 2}, "student": full | {"adapter": 2, "from": "completer"}}
    monkeypatch.setattr(recipe, "load", lambda name: begun)
    monkeypatch.setattr(kept, "FOLDER", small_world / "adapters")
    card, models = build.build("tiny"), small_world / "models" / "tiny"
    assert card["recipe"] == begun and card["models"].keys() == {"student", "teacher", "completer", "prm"}
    files = {path.relative_to(models): path.read_bytes() for path in models.rglob("*.safetensors")}
    adapters = {f"adapters/{role}" for role in ("student", "completer", "prm")}
    assert {path.parent.as_posix() for path in files} == card["models"].keys() | adapters
    monkeypatch.setattr(recipe, "digest", lambda *_: "another")
    build.build("tiny")
    assert {path.relative_to(models): path.read_bytes() for path in models.rglob("*.safetensors")} == files


def test_an_adapter_that_is_kept_is_not_trained_again_until_its_recipe_changes(tmp_path, checkpoint, monkeypatch):
    part: dict[str, Any] = {key: MODEL[key] for key in ("train", "habits")} | {"adapter": 2}
    prm: dict[str, Any] = RECIPE["prm"] | {"adapter": 2, "completer": "teacher"}
    world = {"task": "chain", "seed": 0, "start": checkpoint("llama"), "teacher": part, "prm": prm}
    world |= {"student": part | {"from": "teacher"}, "kept": tmp_path / "kept"}
    cell, trained = build._cell("tiny"), []
    fit = pretrain.fit
    monkeypatch.setattr(
        pretrain, "fit", lambda *args, **kwargs: (trained.append(kwargs["shown"]), fit(*args, **kwargs))
    )

    def weights(folder):
        return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.safetensors")}

    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    for role in ("teacher", "student"):
        kept.tell(world, role, first / "adapters" / role, build._train(role, world, first, cell))
    kept.tell(world, "prm", first / "adapters" / "prm", build._train_prm(world, first, cell))
    assert trained == ["teacher of seed 0", "student of seed 0"]
    shutil.copytree(first / "adapters", tmp_path / "kept")
    for role in ("teacher", "student"):
        assert build._train(role, world, second, cell) == kept.card(world, role)
    assert build._train_prm(world, second, cell) == kept.card(world, "prm")
    assert len(trained) == 2 and weights(second) == weights(first)

    # What the student goes on from has another rate: all three are others then.
    world["teacher"] = part | {"train": MODEL["train"] | {"learning_rate": 5e-3}}
    assert [kept.card(world, role) for role in ("teacher", "student", "prm")] == [None] * 3
    for role in ("teacher", "student"):
        build._train(role, world, third, cell)
        assert weights(third / role) != weights(first / role)


def test_a_recipe_can_change_another():
    fair, small = recipe.load("fair"), recipe.load("small")
    assert fair.pop("trainings") == [1, 2, 3] and "base" not in fair
    assert fair == small and recipe.digest("fair", "2") != recipe.digest("small", "2")


def test_jobs_are_spread_over_the_gpus_there_are(monkeypatch):
    """No more on a card at a time than its memory holds."""

    def gpus(*gib: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(gib))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(gib))
        monkeypatch.setattr(
            torch.cuda, "get_device_properties", lambda gpu: SimpleNamespace(total_memory=gib[gpu] << 30)
        )

    for cards, seats in (
        ((79, 79), [0, 1, 0, 1]),
        ((140,), [0, 0, 0]),
        ((79,), [0, 0]),
        ((16,), [0]),
        ((16, 79), [0, 1, 1]),
    ):
        gpus(*cards)
        assert build._seats() == seats
    gpus()
    assert set(build._seats()) == {0} and 1 <= len(build._seats()) <= 2
    work = {role: recipe.cost(recipe.load("small")[role]) for role in ("student", "teacher", "completer")}
    assert work["teacher"] > work["student"] > work["completer"]
