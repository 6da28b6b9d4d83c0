r"""Is this completion right? Its last ``\boxed{}`` against the gold answer, by math-verify.

What is graded: the content of the completion's last well-formed ``\boxed{}``, and nothing else. A completion without
one is wrong, whatever number it ends on: the format is part of the task, and math-verify's fallback (the last number of
the text) would pay for luck.

Why gold is wrapped: math-verify extracts an expression from a *text*, so a bare ``3\sqrt{13}`` is read as the text "3"
followed by noise. Of MATH-500's gold answers 108 of 500, parsed bare, fail their own reference solution; as
``\boxed{answer}`` all 500 verify. ``gold="bare"`` keeps the faulty grading, to show what it costs.

Why a child process: symbolic algebra on a model's output may run forever (``9^{9^{9^{9}}}``) or take the machine's
memory, and math-verify's own timeout is a signal handler: main thread only, and Python never runs it while one long
multiplication is under way. A process can be killed. The child is ``lrd/verifier/grader.py`` run as a module: it never
imports torch nor the caller's ``__main__`` (as ``multiprocessing`` would), so it works the same from a script, a
notebook, a Ray worker, a daemonic process or a thread. The parent imports only the standard library.
"""

import atexit
import functools
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time

WORK_SECONDS = 4.0  # wall time for one answer; a usual one takes 2 ms
START_SECONDS = 60.0  # wall time for the child to import sympy: 0.4 s warm, several from a cold disk
LONGEST = 2000  # characters of both answers; MATH-500's have 53 at most
MEMORY_BYTES = 4 << 30  # the child's address space; a usual one takes 0.1 GiB

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_INTEGER = re.compile(r"-?[0-9]{1,18}")

# An escaped brace (or any \x pair) is text; a box opens a group like any brace. The pair rule stands after the box rule
# and takes backslashes two by two, so a run of them is read once: the scan is linear in the text.
_BRACE = re.compile(r"(?P<box>\\{1,2}boxed\s*\{)|\\.|(?P<open>\{)|(?P<close>\})", re.DOTALL)


def last_boxed(text: str) -> str | None:
    r"""Content of the last well-formed ``\boxed{...}``, exactly as written; None where there is none.

    Well-formed means closed, counting braces as TeX does (``\{`` and ``\}`` are text). Of nested boxes the inner one
    is last, as in the MATH dataset's own extraction. An unclosed box is passed over for the one before it. ``\boxed 5``
    and ``\fbox{5}`` do not count: gold answers come from ``\boxed{}`` only. Time is linear in ``len(text)``.
    """
    opened: list[int | None] = []  # for every group still open: where a box's content starts, None for a plain brace
    start, end = -1, -1
    for token in _BRACE.finditer(text):
        if token["box"]:
            opened.append(token.end())
        elif token["open"]:
            opened.append(None)
        elif token["close"] and opened:
            begun = opened.pop()
            if begun is not None and begun > start:
                start, end = begun, token.start()
    return None if start < 0 else text[start:end]


def is_correct(completion: str, answer: str, gold: str = "boxed") -> bool:
    r"""Whether ``completion`` answers ``answer``: never raises on any text, and never hangs.

    ``gold="boxed"`` compares the last ``\boxed{}`` with ``answer``, which may itself stand in a box or in ``$``: no box
    or an empty one is False, the same string is True, two integers are compared as such, more than ``LONGEST``
    characters are False, and ``grader.py`` decides the rest. ``gold="bare"`` grades as the original study did, with
    its fault: ``parse(completion)`` against ``parse(answer)``, no wrapping and no shortcut.

    What takes longer than ``WORK_SECONDS`` is False, at the cost of that time and a new child (0.4 s). Verdicts,
    timeouts included, are cached, so a repeated answer costs nothing. Calls from several threads take turns.

    Raises ValueError for an unknown ``gold``, and RuntimeError where math-verify cannot be started at all: a broken
    installation must not look like a wrong answer.
    """
    if gold == "bare":
        return _verified(answer, completion, True)
    if gold != "boxed":
        raise ValueError(f"gold must be 'boxed' or 'bare', not {gold!r}")
    boxed, answer = (last_boxed(completion) or "").strip(), (last_boxed(answer) or answer).strip()
    if not boxed or not answer:
        return False
    if _INTEGER.fullmatch(boxed) and _INTEGER.fullmatch(answer):  # most wrong answers: no need to ask another process
        return int(boxed) == int(answer)
    if boxed == answer and "nan" not in answer.lower():  # which equals nothing, itself included
        return True
    return len(boxed + answer) <= LONGEST and _verified(rf"\boxed{{{answer}}}", rf"\boxed{{{boxed}}}")


@functools.lru_cache(maxsize=4096)
def _verified(*asked: str | bool) -> bool:
    """The child's verdict on a gold answer and another; `True` behind them asks for the original's grading."""
    return _child.verdict(*asked)


class _Child:
    """The process that runs math-verify: started at the first question, replaced when it dies or takes too long."""

    def __init__(self):
        self.turn = threading.Lock()
        self.process: subprocess.Popen | None = None
        self.pipe: socket.socket | None = None

    def verdict(self, *asked: str | bool) -> bool:
        question = json.dumps(asked).encode("ascii") + b"\n"  # escapes NULs and lone surrogates
        with self.turn:
            try:
                # Silence on the first try may be a child that was killed while idle; on the second it is the answer's
                # doing (a stack overflow, say).
                deadline = None
                for _ in range(2):
                    pipe = self._running()
                    deadline = deadline or time.monotonic() + WORK_SECONDS
                    reply = _ask(pipe, question, deadline)
                    if reply:
                        return reply == b"1"
                    self.stop()
                return False
            except TimeoutError:
                self.stop()
                return False
            except BaseException:  # Ctrl-C between question and reply: the reply must not answer the next question
                self.stop()
                raise

    def _running(self) -> socket.socket:
        """The pipe to a child that has imported math-verify and waits; starts one if there is none."""
        if self.pipe is not None and self.process is not None and self.process.poll() is None:
            return self.pipe
        self.stop()
        # -P: what lies in the working directory must not shadow anyone's modules
        command = [sys.executable, "-P", "-m", "lrd.verifier.grader", str(WORK_SECONDS + 1), str(MEMORY_BYTES)]
        path = os.pathsep.join(filter(None, [_ROOT, os.environ.get("PYTHONPATH")]))
        try:
            self.pipe, theirs = socket.socketpair()
            with theirs:
                self.process = subprocess.Popen(
                    command,
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,  # antlr prints
                    env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "0"},  # the same verdict in every child
                    start_new_session=True,  # Ctrl-C is for the parent
                )
            if _ask(self.pipe, b"", time.monotonic() + START_SECONDS):
                return self.pipe
            why = "it ended at once, its message is on stderr"
        except OSError as error:  # TimeoutError included
            why = str(error)
        raise RuntimeError(f"math-verify does not start ({why}): {' '.join(command)}")

    def stop(self) -> None:
        """Kill the child, if any; the next question starts another."""
        if self.pipe is not None:
            self.pipe.close()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self.process = self.pipe = None

    def forget(self) -> None:
        """In a forked copy of the parent: let go of a child that is not ours, and of a lock that may be held."""
        if self.pipe is not None:
            self.pipe.close()  # a second holder would keep the child waiting when the parent dies
        self.turn, self.process, self.pipe = threading.Lock(), None, None


def _ask(pipe: socket.socket, question: bytes, deadline: float) -> bytes:
    """One byte from the child, ``b""`` if it is dead. Raises TimeoutError past ``deadline`` (monotonic seconds)."""
    try:
        pipe.settimeout(max(deadline - time.monotonic(), 1e-3))
        pipe.sendall(question)
        pipe.settimeout(max(deadline - time.monotonic(), 1e-3))
        return pipe.recv(1)
    except ConnectionError:
        return b""


_child = _Child()
atexit.register(_child.stop)
os.register_at_fork(after_in_child=_child.forget)
