r"""The verifier on all of MATH-500, on hostile text, and on the deaths of its child and of its parent."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from lrd import verifier
from lrd.verifier import is_correct, last_boxed

ROOT = Path(__file__).resolve().parents[2]
MATH500 = ROOT.parent / "shared" / "data" / "math500.jsonl"
HANG = r"\boxed{9^{9^{9^{9}}}}"


@pytest.fixture(scope="module")
def math500():
    if not MATH500.exists():
        pytest.skip(f"{MATH500} is absent")
    return [json.loads(line) for line in MATH500.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def uncached():
    verifier._verified.cache_clear()


def child_pid() -> int:
    assert verifier._child.process is not None
    return verifier._child.process.pid


def wait_gone(pid: int, seconds: float) -> bool:
    """Whether the process ends (or is a zombie that nobody reaps) within ``seconds``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
        if not state or state.startswith("Z"):
            return True
        time.sleep(0.1)
    return False


def script(tmp_path: Path, source: str, **options) -> subprocess.Popen:
    """A parent of its own, whose main module has no ``__main__`` guard."""
    path = tmp_path / "parent.py"
    path.write_text("from lrd import verifier\n" + textwrap.dedent(source))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, str(path)], stdout=subprocess.PIPE, text=True, env=environment, cwd=tmp_path, **options
    )


# The last box


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"so \boxed{5}.", "5"),
        (r"\boxed{1} or \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed {5}", "5"),
        (r"\boxed{ 5 }", " 5 "),
        (r"\boxed{}", ""),
        (r"x \\\boxed{5}", "5"),  # a line break, then the box
        (r"\\boxed{5}", "5"),  # a doubly escaped box
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{[0, 1\}}", r"[0, 1\}"),  # an escaped brace is text
        (r"\boxed{1 \\}", r"1 \\"),  # and an escaped backslash does not escape the brace
        (r"\boxed{x = \boxed{5}}", "5"),
        (r"\boxed{1} then \boxed{2", "1"),
        (r"\boxed{1 then \boxed{2}", "2"),
        (r"} } \boxed{1} { {", "1"),
        (r"\boxed{1\}", None),
        (r"\boxed{", None),
        (r"\boxed 5", None),
        (r"\fbox{5}", None),
        (r"boxed{5}", None),
        ("the answer is 5", None),
        ("", None),
    ],
)
def test_last_boxed(text, content):
    assert last_boxed(text) == content


_plain = st.text(st.characters(exclude_characters="\\{}"), max_size=8)
_balanced = st.recursive(
    st.one_of(_plain, st.sampled_from([r"\frac", r"\{", r"\}", r"\\"])),
    lambda inner: st.one_of(inner.map("{{{}}}".format), st.lists(inner, max_size=4).map("".join)),
    max_leaves=12,
)


@settings(deadline=None)
@given(st.text(max_size=20), _balanced, _plain)
def test_last_boxed_returns_any_balanced_content(before, content, after):
    assert last_boxed(f"{before.rstrip(chr(92))} \\boxed{{{content}}}{after}") == content


@settings(deadline=None)
@given(
    st.text(st.sampled_from("\\{} boxed5"), max_size=60)
    | st.lists(st.sampled_from(["\\boxed{", "}", "5"])).map("".join)
)
def test_last_boxed_is_a_balanced_part_of_the_text(text):
    content = last_boxed(text)
    if content is not None:
        assert content in text
        assert last_boxed(f"\\boxed{{{content}}}") is not None


def by_scanning(text: str) -> str | None:
    """The content of the last box that closes: from each opening, latest first, braces are counted one by one."""
    for start in sorted((i for i in range(len(text)) if text.startswith("\\boxed{", i)), reverse=True):
        depth, begin = 1, start + len("\\boxed{")
        for end in range(begin, len(text)):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            if depth == 0:
                return text[begin:end]
    return None


@given(st.lists(st.sampled_from(["\\boxed{", "\\fbox{", "\\frac{", "{", "}", "}", "1", " ", "\\boxed 2"]), max_size=14))
def test_last_boxed_is_what_counting_braces_finds(pieces):
    text = "".join(pieces)
    assert last_boxed(text) == by_scanning(text)


@pytest.mark.parametrize(
    "noise", ["\\boxed{", "\\boxed{}", "{", "}", "\\", "\\boxed ", "\\boxed", "{\\boxed{", "\\boxed{{", " "]
)
def test_last_boxed_is_linear(noise):
    start = time.perf_counter()
    last_boxed(noise * (1_000_000 // len(noise)))
    last_boxed("\\boxed" + noise * (1_000_000 // len(noise)))
    assert time.perf_counter() - start < 4  # measured: 0.5 s at most; quadratic would be hours


# MATH-500


def test_every_reference_solution_is_correct(math500):
    assert len(math500) == 500
    assert all(is_correct(row["solution"], row["answer"]) for row in math500)


def test_every_reference_solution_is_correct_without_the_string_shortcut(math500, uncached):
    failed = [
        row["id"]
        for row in math500
        if not verifier._verified(rf"\boxed{{{row['answer']}}}", rf"\boxed{{{last_boxed(row['solution'])}}}")
    ]
    assert failed == []


def test_the_next_problems_answer_is_wrong(math500, uncached):
    following = math500[1:] + math500[:1]
    pairs = [(a, b) for a, b in zip(math500, following, strict=True) if a["answer"] != b["answer"]]
    paid = [(row["answer"], other["answer"]) for row, other in pairs if is_correct(row["solution"], other["answer"])]
    assert len(pairs) == 498
    assert paid == [("5", "x=5")]  # equal in all but form


def test_bare_gold_loses_a_fifth(math500, uncached):
    lost = [row["answer"] for row in math500 if not is_correct(row["solution"], row["answer"], gold="bare")]
    assert len(lost) == 108
    assert r"3\sqrt{13}" in lost


# Verdicts


def test_verdicts():
    assert is_correct(r"so \boxed{\frac{1}{2}}", "0.5")
    assert is_correct(r"so \boxed{ \text{Evelyn} }", r"\text{Evelyn}")
    assert is_correct(r"\boxed{1} no, \boxed{2}", "2")
    assert not is_correct(r"\boxed{1} no, \boxed{2}", "1")
    assert not is_correct("the answer is 5", "5")
    assert not is_correct(r"\boxed{}", "")
    assert not is_correct(r"\boxed{}", "5")
    assert not is_correct(r"\boxed{3}", r"3\sqrt{13}")


def test_bare_gold_pays_a_wrong_answer():
    assert is_correct(r"\boxed{3}", r"3\sqrt{13}", gold="bare")
    assert not is_correct(r"\boxed{3\sqrt{13}}", r"3\sqrt{13}", gold="bare")
    assert is_correct("the answer is 5", "5", gold="bare")  # the original asks for no box


def test_unknown_gold():
    with pytest.raises(ValueError, match="'boxed' or 'bare'"):
        is_correct("", "5", gold="wrapped")


def test_repeated_answers_are_asked_once(uncached, monkeypatch):
    asked = []
    monkeypatch.setattr(verifier._child, "verdict", lambda *pair: asked.append(pair) or False)
    assert not any(is_correct(f"{i}: \\boxed{{7}}", "x") for i in range(10))
    assert asked == [(r"\boxed{x}", r"\boxed{7}")]


INTEGERS = st.one_of(st.from_regex(r"-?[0-9]{1,3}", fullmatch=True), st.integers(-(10**17) + 1, 10**17 - 1).map(str))


@settings(deadline=None, max_examples=200)
@given(INTEGERS, INTEGERS)
def test_integers_are_compared_without_asking_and_as_math_verify_does(boxed, answer):
    for other in (answer, boxed, f"0{boxed}" if boxed[0] != "-" else f"-0{boxed[1:]}"):
        want = verifier._child.verdict(rf"\boxed{{{other}}}", rf"\boxed{{{boxed}}}")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(verifier._child, "verdict", lambda *pair: pytest.fail(f"asked {pair}"))
            assert is_correct(rf"\boxed{{{boxed}}}", other) == want


def test_a_thousand_answers_a_minute(uncached):
    is_correct(r"\boxed{0}", "1")  # the child's start is not counted
    start = time.perf_counter()
    assert all(is_correct(rf"\boxed{{\frac{{{2 * i + 1}}}{{2}}}}", f"{i}.5") for i in range(500))
    assert not any(is_correct(rf"\boxed{{\sqrt{{{i * i + 1}}}}}", f"{i}") for i in range(500))
    assert time.perf_counter() - start < 60  # measured: 3 s


# Hostile text

HOSTILE = {
    "tower": HANG,
    "long sum": rf"\boxed{{{'1+' * 50_000}1}}",
    "unclosed": r"\boxed{",
    "unclosed noise": r"\boxed{" * 14_000,
    "empty boxes": r"\boxed{}" * 12_000,
    "wrong boxes": r"\boxed{6}" * 11_000,
    "nested boxes": r"\boxed{" * 12_000 + "}" * 12_000,
    "braces": "{" * 100_000,
    "backslashes": "\\" * 100_000,
    "dollars": "$" * 100_000,
    "digits": "7" * 100_000,
    "boxed digits": rf"\boxed{{{'7' * 100_000}}}",
    "boxed braces": rf"\boxed{{{'{' * 50_000}{'}' * 50_000}}}",
    "words": "lorem ipsum " * 8_000,
    "empty": "",
    "NUL": "\0\\boxed{\0\0}\0",
    "surrogates": "\ud800\\boxed{\udfff}",
    "newlines": "\\boxed{\n\r\u2028}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_wrong_in_time(name, uncached):
    start = time.perf_counter()
    assert is_correct(HOSTILE[name], "5") is False
    assert time.perf_counter() - start < 6
    assert is_correct(r"\boxed{5.0}", "5") is True
    assert is_correct(r"\boxed{5.0}", "6") is False


def test_a_timeout_is_paid_once():
    is_correct(HANG, "2")
    start = time.perf_counter()
    assert not is_correct(HANG, "2")
    assert time.perf_counter() - start < 0.1


def test_hostile_gold():
    assert not is_correct(r"\boxed{5}", "")
    assert not is_correct(r"\boxed{5}", "}{\\")
    assert not is_correct(r"\boxed{5}", "\0\ud800")


@settings(deadline=None)  # the first example may start the child
@given(st.text(max_size=40), st.text(max_size=10), st.sampled_from(["boxed", "bare"]))
def test_no_text_raises(text, answer, gold):
    assert is_correct(f"\\boxed{{{text}}}", answer, gold) in (True, False)
    assert is_correct(text, answer, gold) in (True, False)


# Processes


def test_parent_imports_only_the_standard_library(tmp_path):
    parent = script(
        tmp_path,
        """
        import sys
        assert verifier.is_correct(r"\\boxed{0.5}", "1/2")
        print(sorted({"torch", "math_verify", "sympy", "numpy"} & set(sys.modules)))
        """,
    )
    assert parent.communicate(timeout=60)[0].strip() == "[]"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_child_does_not_import_torch(uncached):
    is_correct(r"\boxed{0.25}", "1/4")
    assert "libtorch" not in Path(f"/proc/{child_pid()}/maps").read_text()


def test_killed_child_is_replaced(uncached):
    assert is_correct(r"\boxed{0.5}", "1/2")
    first = child_pid()
    os.kill(first, signal.SIGKILL)
    assert is_correct(r"\boxed{0.75}", "3/4")
    assert child_pid() != first


def test_a_child_that_cannot_start_is_no_wrong_answer(uncached, monkeypatch):
    verifier._child.stop()
    for broken in ("/nonexistent/python", "/bin/false"):
        monkeypatch.setattr(sys, "executable", broken)
        with pytest.raises(RuntimeError, match="math-verify does not start"):
            is_correct(r"\boxed{0.5}", "1/2")
    monkeypatch.undo()
    assert is_correct(r"\boxed{0.5}", "1/2")


def test_threads(uncached):
    verdicts = {}

    def work(k: int) -> None:
        for i in range(20):
            verdicts[k, i] = is_correct(rf"\boxed{{{i}.5}}", rf"\frac{{{2 * i + k % 2 + 1}}}{{2}}")

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert verdicts == {(k, i): k % 2 == 0 for k in range(4) for i in range(20)}


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_daemonic_process_with_a_child_of_its_own(method, uncached):
    assert is_correct(r"\boxed{0.5}", "1/2")
    mine = child_pid()
    context = multiprocessing.get_context(method)
    ours, theirs = context.Pipe()
    process = context.Process(target=_in_another_process, args=(theirs,), daemon=True)
    process.start()
    assert ours.poll(60)
    verdicts, pid = ours.recv()
    process.join(10)
    assert verdicts == [True, False] and pid != mine
    assert wait_gone(pid, 5)
    assert is_correct(r"\boxed{0.25}", "1/4") and child_pid() == mine


def _in_another_process(pipe) -> None:
    verdicts = [is_correct(r"\boxed{1.5}", "3/2"), is_correct(r"\boxed{1.5}", "5/2")]
    pipe.send((verdicts, child_pid()))


def test_killed_parent_leaves_no_orphan(tmp_path):
    """An idle child sees the pipe close; one that hangs in a multiplication is ended by its own alarm."""
    for question, seconds in (("", 3), ("verifier.is_correct(HANG, '3')", verifier.WORK_SECONDS + 4)):
        parent = script(
            tmp_path,
            f"""
            HANG = {HANG!r}
            verifier.is_correct(r"\\boxed{{0.5}}", "1/2")
            print(verifier._child.process.pid, flush=True)
            {question}
            import time; time.sleep(60)
            """,
        )
        pid = int(parent.stdout.readline())
        time.sleep(1)
        parent.kill()
        parent.wait()
        parent.stdout.close()
        assert wait_gone(pid, seconds)


def test_exiting_parent_ends_its_child(tmp_path):
    parent = script(tmp_path, "verifier.is_correct('\\\\boxed{0.5}', '1/2'); print(verifier._child.process.pid)")
    pid = int(parent.communicate(timeout=60)[0])
    assert parent.returncode == 0
    assert wait_gone(pid, 2)


def test_ctrl_c_reaches_the_parent_and_spoils_no_later_answer(tmp_path):
    parent = script(
        tmp_path,
        f"""
        verifier.is_correct(r"\\boxed{{0.5}}", "1/2")
        print("ready", flush=True)
        try:
            verifier.is_correct({HANG!r}, "3")
        except KeyboardInterrupt:
            print([verifier.is_correct(r"\\boxed{{0.25}}", gold) for gold in ("1/3", "1/4", "1/5")])
        """,
        start_new_session=True,
    )
    assert parent.stdout.readline() == "ready\n"
    time.sleep(1)
    os.killpg(parent.pid, signal.SIGINT)
    assert parent.communicate(timeout=30)[0].strip() == "[False, True, False]"
