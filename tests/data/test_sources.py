"""Problems as people have them: tables of columns, GSM8K's answers, mixtures, and several held-out sets."""

import itertools
import json
import random
from pathlib import Path

import pytest
from fakes import call, write_cell, write_lines

from lrd import UserError, results
from lrd.cell import Cell
from lrd.data import problems
from lrd.data.problems import asked, held_out, mixed, prompts_at, train_pool
from lrd.matrix import doctor
from lrd.runs.directory import Run
from lrd.runs.files import read_json, read_jsonl
from lrd.runs.provenance import fingerprint
from lrd.sources import as_config, as_text, held_out_sets, parts

GSM = [
    {"question": "1+1?", "answer": "One and one.\nThat is <<1+1=2>>2.\n#### 2"},
    {"question": "Many?", "answer": "#### 1,080"},
]


def lines(path: Path, rows) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def source(**table) -> str:
    return as_text("train_data", table)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A directory with two splits, and one with two configurations."""
    for split, n in (("train", 5), ("test", 4)):
        lines(tmp_path / "plain" / f"{split}.jsonl", [{"q": f"{split} {i}", "gold": i} for i in range(n)])
    card = "---\nconfigs:\n"
    for name in ("easy", "hard"):
        lines(tmp_path / "two" / name / "train.jsonl", [{"problem": f"{name} {i}", "answer": "1"} for i in range(3)])
        card += f"- config_name: {name}\n  data_files:\n  - split: train\n    path: {name}/train.jsonl\n"
    (tmp_path / "two" / "README.md").write_text(f"{card}---\n")
    return tmp_path


# --- what a setting may say


def test_a_table_is_kept_as_text_and_shown_as_a_table():
    table = {"path": "openai/gsm8k", "problem": "question", "name": "main", "weight": 1}
    cell = Cell.load("tiny", regime="outcome", rank=1, seed=0, train_data=table, eval_data={"path": "chain"})
    assert cell.eval_data == "chain" and hash(cell)
    shown = {"path": "openai/gsm8k", "name": "main", "problem": "question"}
    assert cell.config["train_data"] == shown and json.loads(cell.train_data) == shown
    again = Cell.load("tiny", **{k: v for k, v in json.loads(json.dumps(cell.config)).items() if k != "preset"})
    assert again == cell
    sets = {"math": "HuggingFaceH4/MATH-500", "short": {"path": "chain", "problems": 7}}
    assert as_config(as_text("eval_data", sets)) == sets
    assert held_out_sets(as_text("eval_data", sets), 100) == [
        ("math", "HuggingFaceH4/MATH-500", 100),
        ("short", '{"path": "chain", "problems": 7}', 7),
    ]
    assert held_out_sets("chain", 5) == [("", "chain", 5)]
    assert [part.path for part in parts(as_text("train_data", ["chain", table]))] == ["chain", "openai/gsm8k"]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (
            "train_data",
            {"path": "a/b", "colum": "x"},
            "a source of train_data has no field 'colum'.* it has path",
        ),
        ("train_data", {"name": "main"}, "a source of train_data has no path"),
        ("train_data", {"path": "a/b", "problem": 3}, "problem of a source of train_data is 3; it has to be a text"),
        ("train_data", [{"path": "a/b", "weight": 0}, "chain"], "weight .* is 0; it has to be a number above 0"),
        ("train_data", [{"path": "a/b", "weight": float("inf")}], "weight .* is inf; it has to be a number above 0"),
        ("train_data", {"path": "a/b", "problems": 3}, "problems of 'a/b' is for a held-out set beyond the first"),
        ("train_data", {"path": "chain", "answer": "x"}, "'chain' in train_data makes its problems and has no answer"),
        ("train_data", {"path": "./x.jsonl", "split": "x", "name": "y"}, "is one file and has no name or split"),
        ("train_data", [], "train_data has .*; it has to be a source: a name, a table with path, or a list"),
        ("train_data", [["chain"]], "train_data has .*'chain'.; it has to be a source"),
        ("train_data", "[1", "train_data is no JSON that can be read"),
        ("train_data", 3, "train_data is 3; it has to be a source"),
        ("eval_data", ["chain", "arithmetic"], "eval_data has .*; it has to be .* or a table of named sources"),
        ("eval_data", {"path": "chain", "weight": 2}, "a source of eval_data has a weight"),
        ("eval_data", {"a b": "chain"}, "held-out set 'a b' is no name"),
        ("eval_data", {"a": {"path": "chain", "problems": 3}}, "problems of 'chain' is for .*; give eval_problems"),
    ],
)
def test_what_no_source_can_be_is_one_sentence(key, value, said):
    with pytest.raises(UserError, match=said) as error:
        Cell.load("tiny", regime="outcome", rank=1, seed=0, **{key: value})
    assert "\n" not in str(error.value)


# --- what is read


def test_gsm8k_is_read_by_its_columns(tmp_path):
    path = lines(tmp_path / "gsm.jsonl", GSM)
    pool, dropped = train_pool(source(path=path, problem="question"))
    assert [(p.problem, p.answer) for p in pool] == [("1+1?", "2"), ("Many?", "1,080")] and dropped == 0
    assert pool[0].solution == "One and one.\nThat is 2.\nThe answer is \\boxed{2}."
    assert pool[1].solution == "The answer is \\boxed{1,080}."
    assert train_pool(source(path=path, problem="question", solution="answer"))[0] == pool
    renamed = lines(tmp_path / "r.jsonl", [{"q": row["question"], "working": row["answer"]} for row in GSM])
    assert train_pool(source(path=renamed, problem="q", solution="working"))[0] == pool
    headed = lines(tmp_path / "h.jsonl", [{"problem": "a", "solution": "#### Step 1\nIt is so."}])
    assert train_pool(headed)[0][0].answer is None  # a heading is no answer


def test_directories_by_configuration_split_and_column(folder):
    plain = {"path": str(folder / "plain"), "problem": "q", "answer": "gold"}
    assert [p.answer for p in train_pool(source(**plain))[0]] == list("01234")
    assert {p.problem for p in held_out(source(**plain), 4)} == {f"test {i}" for i in range(4)}
    assert {p.problem for p in held_out(source(**plain, split="train[3:]"), 2)} == {"train 3", "train 4"}
    assert len(train_pool(str(folder / "two"))[0]) == 6
    assert [p.problem[:4] for p in train_pool(source(path=str(folder / "two"), name="hard"))[0]] == ["hard"] * 3


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"problem": "question"}, "has no text in field 'question' .it has q, gold"),
        ({"problem": "q", "answer": "answers"}, "has no text in field 'answers' .it has q, gold"),
        ({"problem": "q", "answer": "gold", "solution": "why"}, "has no text in field 'why' .it has q, gold"),
        ({"problem": "q", "name": "main"}, "cannot load data set .*main"),
        ({"problem": "q", "split": "dev"}, r"cannot load data set .*\(split 'dev'\)"),
    ],
)
def test_a_column_that_is_not_there_is_named(folder, table, said):
    with pytest.raises(UserError, match=said) as error:
        train_pool(source(path=str(folder / "plain"), **table))
    assert "\n" not in str(error.value)


# --- mixtures


def test_a_mixture_has_the_shares_of_its_weights(tmp_path):
    """By hand: 3 to 1 of 10 and 5 problems takes 15 and 5: the ten are gone through one and a half times."""
    few, many = (
        lines(tmp_path / f"{name}.jsonl", [{"problem": f"{name} {i}", "answer": "1"} for i in range(n)])
        for name, n in (("few", 5), ("many", 10))
    )
    text = as_text("train_data", [{"path": many, "weight": 3}, few])
    pool, _ = train_pool(text)
    names = [p.problem.split()[0] for p in pool]
    assert (names.count("many"), names.count("few"), len(set(pool))) == (15, 5, 15)
    assert [p.problem for p in pool[10:16]] == [f"many {i}" for i in range(5)] + ["few 0"]
    seen = [p.problem.split()[0] for step in range(10) for p in prompts_at(step, pool, 4, seed=1)]
    assert seen.count("many") == 30 and prompts_at(3, pool, 4, 1) == prompts_at(3, train_pool(text)[0], 4, 1)
    assert train_pool(as_text("train_data", [few]))[0] == train_pool(few)[0]
    with pytest.raises(UserError, match="a mixture with weights .* of 2, 1 problems takes 2e.09 to show each once"):
        mixed([1e-9, 1.0], [pool[:2], pool[:1]])


def test_no_problem_of_a_mixture_is_left_out():
    made = train_pool("chain")[0]
    rng = random.Random(0)
    for _ in range(50):
        sizes, weights = [rng.randint(1, 40) for _ in range(3)], [rng.uniform(0.1, 5) for _ in range(3)]
        pools = [made[100 * i : 100 * i + n] for i, n in enumerate(sizes)]
        pool = mixed(weights, pools)
        assert set(pool) == set(itertools.chain(*pools))
        for weight, of in zip(weights, pools):
            assert abs(sum(p in of for p in pool) - len(pool) * weight / sum(weights)) <= 1.5


# --- held-out sets


def test_what_evaluations_ask(tmp_path):
    few = lines(tmp_path / "few.jsonl", [{"problem": f"few {i}", "answer": "1"} for i in range(3)])
    text = as_text("eval_data", {"first": "chain", "few": {"path": few, "problems": 3}})
    (evals, validation, further) = asked(text, 10, 20)
    assert (evals.log, evals.name, evals.problems) == ("evals", "first", held_out("chain", 10))
    assert (validation.log, validation.problems) == ("validation", problems.validation("chain", 20, 10))
    assert (further.log, further.name, len(further.problems)) == ("further", "few", 3)
    assert held_out(text, 10) == evals.problems and [len(each) for each in asked("chain", 10, 0)[0][2:]] == [10]
    with pytest.raises(UserError, match="has 3 held-out problems; eval_problems asks for 10 .of a set beyond"):
        asked(as_text("eval_data", {"first": "chain", "few": few}), 10, 0)


def test_fingerprint_and_doctor_know_each_source(tmp_path):
    one, two = (lines(tmp_path / f"{name}.jsonl", [{"q": name, "answer": "1"}]) for name in ("one", "two"))
    text = as_text("train_data", [{"path": one, "problem": "q"}, {"path": two, "problem": "q", "weight": 2}])
    assert fingerprint(text) == f"{fingerprint(one)}+{fingerprint(two)}"
    assert fingerprint(as_text("train_data", [one])) == fingerprint(one) and fingerprint(source(path="chain")) is None
    named = [part.text for part in parts(text)]
    assert all(doctor.source("train_data", name, True).ok for name in named)
    assert "no text in field 'problem'" in doctor.source("train_data", one, True).said


def test_a_run_without_all_of_a_further_set_is_not_whole(tmp_path):
    sets = {"a": "chain", "b": "arithmetic", "c": {"path": "chain", "problems": 2}}
    cell = Cell.load("tiny", regime="outcome", rank=1, seed=0, eval_data=sets, eval_problems=4)
    assert Run(cell, tmp_path)._evaluations == {"evals": 4, "further": 6}


def test_results_show_each_set(tmp_path):
    sets = {"a": "chain", "b": "chain", "c": "arithmetic"}
    cell = Cell.load("tiny", regime="outcome", rank=1, seed=7, eval_data=sets)
    path = write_cell(tmp_path, cell, {0: 5, 10: 15})
    row = {"answered": True, "length": 3, "truncated": False}
    write_lines(
        path / "further.jsonl",
        [
            {"step": step, "set": name, "problem": str(i), "correct": i < right[name] * (step > 0)} | row
            for step in (0, 10)
            for name, right in (("c", {"c": 3}), ("b", {"b": 1}))
            for i in range(4)
        ],
    )
    found = results.load("tiny", tmp_path).off_grid
    assert found is not None and found.problems == []
    (row,) = found.cells.to_dict("records")
    assert (row["final"], row["final b"], row["final c"], row["base c"]) == (0.75, 0.25, 0.75, 0.0)
    assert found.further.groupby("set").size().to_dict() == {"b": 8, "c": 8} and len(found.evals) == 40
    (path / "further.jsonl").unlink()
    gone = results.load("tiny", tmp_path).off_grid
    assert gone is not None and gone.problems == [f"{cell.name}: further.jsonl is missing or empty"]


# --- from outside of the library, through the command line

PRESET = """
base = "tiny"

[axes]
regime = ["outcome"]
rank = [1]
seed = [0]

[cell]
train_data = [
    {{ path = "{here}/gsm.jsonl", problem = "question" }},
    {{ path = "{here}/plain", problem = "q", answer = "gold", weight = 2 }},
]

[cell.eval_data]
plain = {{ path = "{here}/plain", problem = "q", answer = "gold" }}
chains = "chain"
gsm = {{ path = "{here}/gsm.jsonl", problem = "question", problems = 2 }}

"""


def test_a_preset_of_ones_own_problems_runs(settings, folder, monkeypatch):
    lines(folder / "gsm.jsonl", GSM)
    cell = "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())
    text = PRESET.format(here=folder).replace("[cell]\n", f"[cell]\n{cell}")
    (folder / "ours.toml").write_text(text)
    runs = folder / "runs"
    done = call(["cell", "./ours.toml", "--runs", runs], folder)
    assert done.returncode == 0, done.stdout + done.stderr
    path = runs / "ours" / "outcome-r1-s0"
    config, about = read_json(path / "config.json"), read_json(path / "provenance.json")["run"]
    assert config["train_data"][1]["weight"] == 2 and list(config["eval_data"]) == ["plain", "chains", "gsm"]
    assert about["train_problems"] == 7  # 2, and 5
    evals, further = read_jsonl(path / "evals.jsonl"), read_jsonl(path / "further.jsonl")
    assert [(row["step"], row["set"]) for row in evals] == [(0, "plain")] * 4 + [(2, "plain")] * 4
    assert [row["set"] for row in further if row["step"] == 2] == ["gsm"] * 2 + ["chains"] * 4
    monkeypatch.setenv("LRD_RUNS", str(runs))
    found = results.load("ours")
    assert found.problems == [] and {"final", "final chains", "final gsm"} <= set(found.finished)
    again = call(["cell", "ours", "--runs", runs], folder)
    assert "nothing was run" in again.stdout, again.stdout + again.stderr
    (folder / "bad.toml").write_text(text.replace('"question"', '"query"'))
    refused = call(["cell", "./bad.toml", "--runs", runs], folder)
    assert refused.returncode == 2 and "has no text in field 'query' (it has question, answer)" in refused.stderr
    assert refused.stderr.count("\n") == 1 and not (runs / "bad" / "outcome-r1-s0").exists()
