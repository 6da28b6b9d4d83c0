"""Problems, their split, and the order in which a cell sees them."""

import hashlib
import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub import SUBJECTS, hendrycks, math_500
from hypothesis import given, strategies as st

from lrd import ROOT, UserError, names, results
from lrd.analysis import baseline
from lrd.cell import grid
from lrd.data import problems
from lrd.data.arithmetic import LEVELS, THEMES, Story, story
from lrd.data.problems import Chain, Problem, as_problem, held_out, in_held_out_tenth, prompts_at, stream, train_pool
from lrd.runs.directory import Run
from lrd.runs.files import read_json
from lrd.train.loop import train
from lrd.verifier import is_correct


@pytest.fixture
def jsonl(tmp_path):
    """Writes lines (objects as JSON, strings as they are) and gives the path as a source."""

    def write(*lines) -> str:
        path = tmp_path / "problems.jsonl"
        text = "".join((x if isinstance(x, str) else json.dumps(x, ensure_ascii=False)) + "\n" for x in lines)
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


@pytest.fixture(scope="module")
def pool():
    return train_pool("chain")[0]


# --- the arithmetic chain


@pytest.mark.parametrize(
    "start, operations, text, values",
    [
        # 6·2 = 12 → 2; 2 − 6 = −4 → 6; 6 + 3 = 9
        (6, (("*", 2), ("-", 6), ("+", 3)), "6a*2b-6c+3", [2, 6, 9]),
        # 0 − 9 → 1; 1·0 = 0; 0 + 0 = 0; 0 − 1 → 9
        (0, (("-", 9), ("*", 0), ("+", 0), ("-", 1)), "0a-9b*0c+0d-1", [1, 0, 0, 9]),
        # 9·9 = 81 → 1; 1 + 9 = 10 → 0; 0 − 5 → 5; 5·7 = 35 → 5; 5 + 6 = 11 → 1; 1·8 = 8
        (9, (("*", 9), ("+", 9), ("-", 5), ("*", 7), ("+", 6), ("*", 8)), "9a*9b+9c-5d*7e+6f*8", [1, 0, 5, 5, 1, 8]),
    ],
)
def test_chains_by_hand(start, operations, text, values):
    chain = Chain(start, operations)
    assert (chain.text, chain.values) == (text, values)
    assert as_problem(chain) == Problem(text, text, str(values[-1]), len(operations))


@given(st.integers(0, 9), st.lists(st.tuples(st.sampled_from("+-*"), st.integers(0, 9)), min_size=3, max_size=6))
def test_values_are_the_last_digits(start, operations):
    """Reduction modulo 10 at each step changes no last digit: Python's own integers give the same."""
    value = start
    for (op, x), digit in zip(operations, Chain(start, tuple(operations)).values, strict=True):
        value = {"+": value + x, "-": value - x, "*": value * x}[op]
        assert digit == value % 10 and 0 <= digit <= 9


def test_every_task_is_made():
    assert set(names.TASKS) == set(problems.TASKS)


@pytest.mark.parametrize("task", names.TASKS)
def test_the_pools_are_disjoint(task):
    train, dropped = train_pool(task)
    test = held_out(task, 1000)
    texts = {p.problem for p in train}
    assert (len(texts), dropped) == (len(train), 0)  # each once
    assert len(train) >= 100 * 4  # more than a cell of the paper's length sees
    assert len({p.problem for p in test}) == 1000
    assert not texts & {p.problem for p in test}


def test_the_split_is_by_hash_and_holds_for_any_stream():
    """Thousands of chains of other generators: which side one is on is a matter of its text alone, a tenth each way."""
    rng = random.Random(123)
    for is_held_out in (True, False):
        for chain in islice(stream("chain", rng, is_held_out=is_held_out), 1000):
            assert (hashlib.sha256(chain.text.encode()).digest()[0] < 26) == is_held_out
            assert in_held_out_tenth(chain.text) == is_held_out
            assert 3 <= len(chain.operations) <= 6
    train_texts = {chain.text for chain in islice(stream("chain", random.Random(5), is_held_out=False), 2000)}
    assert not train_texts & {p.problem for p in held_out("chain", 1000)}


# --- arithmetic stories


def test_a_story_by_hand():
    terms = (("+", (347, 28)), ("+", (1205,)), ("-", (9, 12)))
    bare, market = (Story(theme, 5, "3*2+4-1*2", terms) for theme in (len(THEMES) - 1, 0))
    assert bare.text == "Compute 347*28+1205-9*12."
    assert market.text == (
        "The market has 347 crates of 28 apples. Then 1205 more apples arrive. Then 9 crates of 12 apples are sold. "
        "How many apples are there in the end?"
    )
    steps = [(347, "*", 28, 9716), (9716, "+", 1205, 10921), (9, "*", 12, 108), (10921, "-", 108, 10813)]
    assert bare.steps == market.steps == steps
    assert as_problem(market) == Problem(market.text, market.text, "10813", 5)


@given(seed=st.integers(0, 10**6))
def test_stories_add_up_and_have_their_shape(seed):
    made = story(random.Random(seed))
    assert int(made.answer) == eval(made.expression) >= 0  # Python's own arithmetic
    assert re.sub(r"\d+", lambda number: str(len(number[0])), made.expression) == made.shape
    assert made.shape in LEVELS[made.level]
    numbers = sorted(re.findall(r"\d+", made.expression))
    assert sorted(re.findall(r"\d+", made.text)) == numbers


def test_every_level_and_theme_comes_up():
    problems = held_out("arithmetic", 1000)
    levels = Counter(p.level for p in problems)
    assert set(levels) == {1, 2, 3, 4, 5} and min(levels.values()) > 150
    assert {p.problem.split()[1] for p in problems if p.problem[:3] == "The"} == {theme[0] for theme in THEMES[:-1]}
    assert any(p.problem.startswith("Compute ") for p in problems)


def test_problems_are_the_same_in_every_process(pool):
    """Whatever Python's hash seed: cells that run side by side must see the same problems."""
    script = """
from lrd.data.problems import held_out, prompts_at, train_pool
pool = train_pool("chain")[0]
print([p.id for p in pool[:20] + held_out("chain", 20) + prompts_at(3, pool, 4, 1)])
"""
    command, printed = [sys.executable, "-c", script], set()
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment)
        printed.add(done.stdout)
    here = [p.id for p in pool[:20] + held_out("chain", 20) + prompts_at(3, pool, 4, 1)]
    assert printed == {f"{here}\n"}


def test_the_gold_answer_verifies(pool):
    for problem in pool[:20]:
        assert is_correct(f"The answer is \\boxed{{{problem.answer}}}.", problem.answer)


# --- the order of prompts


def test_prompts_are_a_function_of_seed_and_step(pool):
    forwards = [prompts_at(step, pool, 4, seed=1) for step in range(6)]
    random.seed(77)  # nor does the global generator matter
    backwards = [prompts_at(step, pool, 4, seed=1) for step in reversed(range(6))]
    assert forwards == backwards[::-1]
    assert forwards != [prompts_at(step, pool, 4, seed=2) for step in range(6)]
    assert len({p.id for step in forwards for p in step}) == 24  # no repeats within a pass


@given(n=st.integers(1, 23), per_step=st.integers(1, 7), seed=st.integers(0, 3))
def test_each_pass_is_a_permutation(n, per_step, seed, pool):
    """Also where a step straddles two passes."""
    pool = pool[:n]
    steps = -(-3 * n // per_step)
    seen = [p for step in range(steps) for p in prompts_at(step, pool, per_step, seed)]
    for lap in range(3):
        assert sorted(p.id for p in seen[lap * n : (lap + 1) * n]) == sorted(p.id for p in pool)


def test_passes_differ(pool):
    pool = pool[:50]
    first, second = (prompts_at(lap, pool, 50, seed=0) for lap in (0, 1))
    assert first != second and first != pool


# --- files


def test_the_evaluation_split_of_math500(math500):
    rows = [json.loads(line) for line in math500.read_text(encoding="utf-8").split("\n") if line]
    random.Random(0).shuffle(rows)
    want = rows[-100:]
    for source in (str(math500), "../shared/data/math500.jsonl"):
        got = held_out(source, 100)
        assert [p.problem for p in got] == [row["problem"] for row in want]
        assert [p.answer for p in got] == [row["answer"] for row in want]
    assert len({p.id for p in got}) == 100
    assert held_out(source, 20) == got[-20:]
    assert len(held_out(source, 500)) == 500


def test_answers_come_from_the_field_or_the_last_box(jsonl):
    source = jsonl(
        {"problem": "a", "answer": "1", "solution": r"\boxed{7}"},
        {"problem": "b", "solution": r"first \boxed{2}, then \boxed{\frac{1}{2}}"},
        {"problem": "c", "solution": "no box"},
        {"problem": "d", "solution": r"\boxed{3"},
        {"problem": "e"},
        {"problem": "f", "unique_id": "x/1", "answer": "0"},
        {"problem": "g", "answer": 0},
        {"problem": "h", "answer": None, "solution": r"\boxed{5}"},
    )
    pool, dropped = train_pool(source)
    assert {p.problem: p.answer for p in pool} == {"a": "1", "b": r"\frac{1}{2}", "f": "0", "g": "0", "h": "5"}
    assert dropped == 3
    assert pool[2].id == "x/1" and len({p.id for p in pool}) == 5


def test_unusual_characters_inside_a_line_do_not_break_it(jsonl):
    """JSON text may hold U+2028 and U+0085 as they are; only a newline ends a line."""
    source = jsonl({"problem": "one\u2028two\u0085three\u2029", "answer": "1"}, {"problem": "b", "answer": "2"})
    assert [p.answer for p in train_pool(source)[0]] == ["1", "2"]


def test_a_blank_line_at_the_end_is_no_problem(jsonl):
    assert len(train_pool(jsonl({"problem": "a", "answer": "1"}, ""))[0]) == 1


@pytest.mark.parametrize("names", [{"unique_id": None}, {"id": "same"}, {"unique_id": "", "id": None}, {}])
def test_each_row_is_a_problem_of_its_own(names, jsonl):
    source = jsonl(*({"problem": f"p{i}", "answer": str(i)} | names for i in range(8)))
    assert len({p.id for p in held_out(source, 8)}) == 8
    assert {p.id for p in train_pool(source)[0]} == {p.id for p in held_out(source, 8)}


def test_ids_that_are_alike_are_told_apart_by_their_place(jsonl):
    source = jsonl(
        {"problem": "a", "answer": "1", "id": 1},  # as the second row would be called
        {"problem": "b", "answer": "2"},
        {"problem": "c", "answer": "3", "id": "1"},
        {"problem": "d", "answer": "4", "id": "1 (line 3)"},
        {"problem": "e", "answer": "5", "unique_id": None, "id": "x"},
    )
    assert [p.id for p in train_pool(source)[0]] == ["1", "1 (line 2)", "1 (line 3)", "1 (line 3) (line 4)", "x"]


def test_pass_at_k_of_problems_without_ids(jsonl, tmp_path):
    """Two samples each of eight problems, of which four are always solved: pass@1 and pass@2 are a half."""
    source = jsonl(*({"problem": f"p{i}", "answer": "1", "unique_id": None} for i in range(8)))
    rows = [
        {"model": "student", "subject": None, "level": None, "sample": sample, "problem": p.id, "length": 1}
        | {"correct": p.problem in ("p0", "p1", "p2", "p3"), "answered": True, "truncated": False}
        for p in held_out(source, 8)
        for sample in ("greedy", "0", "1")
    ]
    path = tmp_path / "runs" / "mine" / "baseline" / "samples.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    frame = results.baseline("mine", tmp_path / "runs")
    assert {k: (len(each), each.mean()) for k, each in baseline.estimates_at(frame).items()} == {
        1: (8, 0.5),
        2: (8, 0.5),
    }


def test_ids_keep_their_zeros_in_the_baseline(tmp_path):
    rows = [
        {"model": "student", "level": None, "sample": sample, "problem": name, "length": 1, "correct": name == "7"}
        for name in ("7", "07")
        for sample in ("greedy", "0")
    ]
    path = tmp_path / "mine" / "baseline" / "samples.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert baseline.estimates_at(results.baseline("mine", tmp_path))[1].to_dict() == {
        ("student", "07"): 0.0,
        ("student", "7"): 1.0,
    }


@pytest.mark.parametrize(
    "written", ["0.00001", "2.5e-6", "1e22", "0.50", "-0", "1E5", "1e400", "12345678901234567890.10", "7" * 5000]
)
def test_a_gold_number_stays_as_it_is_written(written, jsonl):
    [problem], dropped = train_pool(jsonl(f'{{"problem": "a", "answer": {written}}}'))
    assert (problem.answer, dropped) == (written, 0)
    assert is_correct(rf"\boxed{{{written}}}", problem.answer)
    assert not is_correct(r"\boxed{e-5}", problem.answer) and not is_correct(r"\boxed{e-6}", problem.answer)


@pytest.mark.parametrize(
    "written",
    ["NaN", "Infinity", "-Infinity", "null", '"nan"', '""', '" "', '"$"', '"$ $"', '"."', '"\\u200b"']
    + [r'"\\boxed{}"', r'"$\\boxed{ }$"', r'"\\text{}"', r'"$\\text{NaN}$"'],
)
def test_a_gold_that_is_no_number_is_missing(written, jsonl):
    pool, dropped = train_pool(jsonl({"problem": "a", "answer": "1"}, f'{{"problem": "b", "answer": {written}}}'))
    assert (len(pool), dropped) == (1, 1)


@pytest.mark.parametrize("written", ["NaN", '""', '" "', "null"])
def test_a_missing_gold_is_taken_from_the_solution(written, jsonl):
    [problem], _ = train_pool(jsonl(rf'{{"problem": "a", "answer": {written}, "solution": "\\boxed{{2}}"}}'))
    assert problem.answer == "2"


def test_a_gold_behind_its_working_is_taken_alone(jsonl):
    """As GSM8K has it."""
    [problem], _ = train_pool(jsonl({"problem": "a", "answer": "He has 3 * 6 = 18.\n#### 1,018"}))
    assert problem.answer == "1,018"


@pytest.mark.parametrize(
    ("written", "level"),
    [("5", 5), ("5.0", 5), ('"Level 5"', 5), ('"Level ?"', None), ("4.7", None), ("-3", None), ("1e3", None)],
)
def test_a_level_is_a_whole_number(written, level, jsonl):
    [problem], _ = train_pool(jsonl(f'{{"problem": "a", "answer": "1", "level": {written}}}'))
    assert problem.level == level


def test_a_blank_field_is_none(jsonl):
    [problem], _ = train_pool(jsonl({"problem": "a", "answer": "1", "id": " ", "subject": "", "type": "Algebra"}))
    assert (problem.id, problem.subject) == ("0", "Algebra")


def test_golds_of_a_data_set_are_decimals(tmp_path):
    """Parquet has no text of a number: the shortest decimal, never `1e-05`, which was read as e - 5."""
    folder = tmp_path / "mine"
    folder.mkdir()
    columns = {
        "problem": pa.array(["a", "b", "c", "d"]),
        "answer": pa.array([0.00001, 1e22, float("nan"), 0.1], pa.float64()),
    }
    pq.write_table(pa.table(columns), folder / "train.parquet")
    pool, dropped = train_pool(str(folder))
    assert [p.answer for p in pool] == ["0.00001", "1" + "0" * 22, "0.1"] and dropped == 1
    narrow = columns | {"answer": pa.array([0.1, 2.5, None, 1e-3], pa.float32())}
    pq.write_table(pa.table(narrow), folder / "train.parquet")
    assert [p.answer for p in train_pool(str(folder))[0]] == ["0.1", "2.5", "0.001"]
    half = columns | {"answer": pa.array([0.1, 2.5, None, 1e-3], pa.float32()).cast(pa.float16())}
    pq.write_table(pa.table(half), folder / "train.parquet")
    assert [p.answer for p in train_pool(str(folder))[0]] == ["0.1", "2.5", "0.001"]
    whole = columns | {"answer": pa.array([3, 0, None, -7], pa.int64())}
    pq.write_table(pa.table(whole), folder / "train.parquet")
    assert [p.answer for p in train_pool(str(folder))[0]] == ["3", "0", "-7"]
    for wrong, said in (([[1], [2], [3], [4]], "a list"), ([True, False, True, None], "true or false")):
        pq.write_table(pa.table(columns | {"answer": pa.array(wrong)}), folder / "train.parquet")
        with pytest.raises(UserError, match=rf"'answer' of row 0 of .* is {said}"):
            train_pool(str(folder))


# --- data sets as the Hub lays them out

SOLUTIONS = {  # a subject's solutions, and the gold answer of each
    "algebra": [(r"so $x = \boxed{\frac{1}{\sqrt{2}}}$.", r"\frac{1}{\sqrt{2}}"), (r"\boxed{(3,\{4\})}", r"(3,\{4\})")],
    "counting_and_probability": [(r"$\boxed{10}$ or, all told, $\boxed{\boxed{12}}$", "12")],
    "geometry": [("The answer is 7.", None), (r"\fbox{7}", None), (r"\boxed 7", None)],
    "intermediate_algebra": [(r"$\boxed{3}$, hence $\boxed{3+", "3"), (r"\boxed{", None), (r"$\boxed{ }$", None)],
    "number_theory": [(r"\boxed{2^{10}} by hand; \fbox{1024}", "2^{10}")],
    "prealgebra": [("", None), (r"\boxed{\text{(A)}}", r"\text{(A)}")],
    "precalculus": [(r"\boxed{\begin{pmatrix} 1 \\ 0 \end{pmatrix}}", r"\begin{pmatrix} 1 \\ 0 \end{pmatrix}")],
}


@pytest.fixture
def subjects(tmp_path) -> str:
    rows = {
        subject: [
            {"problem": f"{subject} {i}?", "level": f"Level {1 + i}", "type": name, "solution": text}
            for i, (text, _) in enumerate(SOLUTIONS[subject])
        ]
        for subject, name in SUBJECTS.items()
    }
    rows["algebra"][1]["level"] = "Level ?"
    return str(hendrycks(tmp_path / "hendrycks_math", rows))


def test_all_subjects_are_read_in_order_and_rows_without_an_answer_dropped(subjects):
    pool, dropped = train_pool(subjects)
    want = [
        (f"{s} {i}?", gold, None if (s, i) == ("algebra", 1) else 1 + i, SUBJECTS[s])
        for s in SUBJECTS
        for i, (_, gold) in enumerate(SOLUTIONS[s])
        if gold is not None
    ]
    assert [(p.problem, p.answer, p.level, p.subject) for p in pool] == want
    assert dropped == 6 and len({p.id for p in pool}) == len(pool)
    assert train_pool(subjects) == (pool, dropped)


def test_a_directory_of_the_same_name_is_not_taken_for_another(tmp_path):
    """The data sets library caches a declared configuration under the directory's own name."""
    for answer in ("1", "2"):
        row = {"problem": "?", "level": "Level 1", "type": "Algebra", "solution": rf"\boxed{{{answer}}}"}
        [problem], _ = train_pool(str(hendrycks(tmp_path / answer / "same", {"algebra": [row]})))
        assert problem.answer == answer


def test_a_run_keeps_how_many_rows_were_dropped(subjects, make_cell, tmp_path):
    run = Run(make_cell(train_data=subjects, steps=0, eval_problems=1), tmp_path / "runs")
    assert list(train(run)) == []
    about = read_json(run.path / "provenance.json")["run"]
    assert (about["train_problems"], about["train_problems_dropped"]) == (7, 6)


def test_the_evaluation_split_of_the_hubs_math500(math500, tmp_path):
    """Spec §3 on row numbers, without our loader; and every cell of the matrix asks for the same."""
    raw = [json.loads(line) for line in math500.read_text(encoding="utf-8").split("\n") if line]
    rows = [
        {key: row[key] for key in ("problem", "solution", "answer")}
        | {"subject": "Algebra", "level": 1 + i % 5, "unique_id": f"test/algebra/{i}.json"}
        for i, row in enumerate(raw)
    ]
    source = str(math_500(tmp_path / "MATH-500", rows))
    order = list(range(500))
    random.Random(0).shuffle(order)
    got = held_out(source, 100)
    assert [p.id for p in got] == [f"test/algebra/{i}.json" for i in order[-100:]]
    assert [(p.problem, p.answer) for p in got] == [(raw[i]["problem"], raw[i]["answer"]) for i in order[-100:]]
    assert {p.subject for p in got} == {"Algebra"} and [p.level for p in got] == [1 + i % 5 for i in order[-100:]]
    assert [p.problem for p in got] == [p.problem for p in held_out(str(math500), 100)]
    asked = {(c.eval_data, c.eval_problems, c.prompt_template, c.grading) for c in grid("paper")}
    assert asked == {("HuggingFaceH4/MATH-500", 100, "Problem: {problem}\n\nSolution: ", "boxed")}


# --- bad input


def one_sentence(error) -> bool:
    return "\n" not in str(error.value) and len(str(error.value)) < 600


@pytest.mark.parametrize("source", ["nosuch.jsonl", "/nosuch/dir/problems.jsonl", "../shared/nosuch.jsonl"])
def test_a_missing_file_is_a_user_error(source):
    with pytest.raises(UserError, match=f"no file '{source}'") as error:
        train_pool(source)
    assert one_sentence(error)


@pytest.mark.parametrize(
    "line, said",
    [
        ("{'problem': 'a'}", "line 2"),
        ('{"problem": "a", "answer"', "line 2"),
        ("garbage", "line 2"),
        ("[1, 2]", "line 2"),
        ("42", "line 2"),
        ("null", "line 2"),
        ('{"question": "a", "answer": "1"}', "problem"),
        ('{"problem": null, "answer": "1"}', "problem"),
        ('{"problem": "a", "solution": null}', ""),
        ('{"problem": "a", "answer": null}', ""),
    ],
)
def test_a_garbage_line_is_a_user_error_or_dropped(line, said, jsonl):
    source = jsonl({"problem": "a", "answer": "1"}, line)
    try:
        pool, dropped = train_pool(source)
    except UserError as error:
        assert said in str(error) and source in str(error) and "\n" not in str(error)
    else:  # a row that has no gold answer is dropped and counted, and no other
        assert said == "" and (len(pool), dropped) == (1, 1)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("answer", "[2, 3]", "a list"),
        ("answer", "true", "true or false"),
        ("answer", "{}", "an object"),
        ("answer", '"\\ud800"', "half a character"),
        ("solution", '["a"]', "a list"),
        ("solution", "5", "a number"),
        ("problem", "5", "a number"),
        ("problem", '["a"]', "a list"),
        ("problem", '"\\udfff"', "half a character"),
        ("problem", '""', "no text"),
        ("problem", '" "', "no text"),
        ("id", "[1]", "a list"),
        ("id", '"\\ud800"', "half a character"),
        ("unique_id", "{}", "an object"),
        ("level", "[3]", "a list"),
        ("level", "false", "true or false"),
        ("level", "7" * 5000, "5000 digits"),
        ("subject", "[]", "a list"),
        ("type", "true", "true or false"),
        ("extra", "[" * 10_000 + "]" * 10_000, "nested too deeply"),
        ("extra", '{"a": 1, "a": 2}', "'a' twice"),
        ("extra", f'{{"{"k" * 9999}": 1, "{"k" * 9999}": 2}}', "kkk' twice"),
    ],
)
def test_a_field_that_is_no_text_is_a_user_error_with_its_row(field, value, said, jsonl):
    row = {"problem": '"a"', "answer": '"1"'} | {field: value}
    fields = ", ".join(f'"{key}": {its}' for key, its in row.items())
    source = jsonl({"problem": "z", "answer": "1"}, f"{{{fields}}}")
    with pytest.raises(UserError, match="line 2") as error:
        train_pool(source)
    assert said in str(error.value) and one_sentence(error)


def test_a_field_twice_is_a_user_error(jsonl):
    with pytest.raises(UserError, match=r"line 1 .* 'answer' twice"):
        train_pool(jsonl('{"problem": "a", "answer": "1", "answer": "2"}'))


def test_what_can_be_read_is_read(tmp_path):
    """A byte order mark, lines that end as on Windows, an escaped NUL, whole numbers of any length."""
    path = tmp_path / "windows.jsonl"
    rows = [
        '{"problem": "a\\u0000b", "answer": "1"}',
        '{"problem": "c", "answer": %s, "level": 3, "type": "x"}' % ("1" * 5000),
    ]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(rows).encode())
    first, second = train_pool(str(path))[0]
    assert (first.problem, first.answer) == ("a\0b", "1")
    assert (second.answer, second.level, second.subject) == ("1" * 5000, 3, "x")


def test_text_that_is_not_utf8_is_a_user_error(tmp_path):
    path = tmp_path / "latin.jsonl"
    path.write_bytes('{"problem": "é", "answer": "1"}\n'.encode("latin-1"))
    with pytest.raises(UserError, match=r"latin\.jsonl"):
        train_pool(str(path))


@pytest.mark.parametrize("name", ["\\ud800", "two\\nlines", "k" * 9999])
def test_names_of_fields_are_shown_in_one_line(name, jsonl):
    with pytest.raises(UserError, match="no text in field 'problem'") as error:
        train_pool(jsonl(f'{{"{name}": "a", "answer": "1"}}'))
    assert one_sentence(error) and str(error.value).encode()


@pytest.mark.parametrize("name", [f"{'x' * 300}.jsonl", f"./{'x' * 300}"])
def test_a_name_too_long_for_a_file_is_a_user_error(name):
    with pytest.raises(UserError, match="there is no"):
        train_pool(name)


def test_what_is_wrong_in_a_data_set_is_said(tmp_path, capfd):
    (tmp_path / "train.jsonl").write_text('{"problem": "a", "answer": "1"}\n{"problem": "b", "ans')
    with pytest.raises(UserError, match="Missing a closing quotation mark .* row 1") as error:
        train_pool(str(tmp_path))
    assert one_sentence(error) and capfd.readouterr().err == ""


def test_a_source_without_any_gold_answer_keeps_its_problems(jsonl):
    """They are for rewards that need none; a row that lacks what others have is dropped."""
    pool, dropped = train_pool(jsonl({"problem": "a", "solution": "no box"}, {"problem": "b", "answer": "nan"}))
    assert [(p.id, p.problem, p.answer) for p in pool] == [("0", "a", None), ("1", "b", None)] and dropped == 0


@pytest.mark.parametrize("lines", [(), ("",)])
def test_a_file_without_problems_is_a_user_error(lines, jsonl):
    with pytest.raises(UserError, match="no problem") as error:
        train_pool(jsonl(*lines))
    assert one_sentence(error)


def test_too_few_held_out_problems_are_a_user_error(jsonl):
    source = jsonl({"problem": "a", "answer": "1"}, {"problem": "b", "answer": "2"})
    assert len(held_out(source, 2)) == 2
    with pytest.raises(UserError, match=r"has 2 held-out problems; eval_problems asks for 3") as error:
        held_out(source, 3)
    assert one_sentence(error)


@pytest.mark.parametrize("source", ["HuggingFaceH4/NO-SUCH-MATH", "./no/such/directory"])
def test_a_data_set_that_is_not_there_is_a_user_error(source):
    with pytest.raises(UserError, match=f"cannot load data set '{source}'") as error:
        train_pool(source)
    assert one_sentence(error)


def test_the_validation_split_lies_apart_from_the_test_split_whatever_their_sizes():
    test, validation = held_out("chain", 100), problems.validation("chain", 924, 100)
    assert len({p.id for p in [*test, *validation]}) == 1024
    assert problems.validation("chain", 50, 900) == validation[:50] and problems.validation("chain", 0, 2000) == []
    with pytest.raises(UserError, match="1024 held-out problems; eval_problems takes 100 .* validation_problems = 925"):
        problems.validation("chain", 925, 100)
