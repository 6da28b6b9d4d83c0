"""Ctrl-C, and a host that is taken away: work comes to a state that can be kept before it stops."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator


def _at_once() -> None:
    raise KeyboardInterrupt


@contextlib.contextmanager
def on_stop(do: Callable[[], object] = lambda: None, again: Callable[[], object] = _at_once) -> Iterator[list[int]]:
    """Within it SIGINT and SIGTERM call `do` in place of what they did; a second SIGINT calls `again`.

    Yields the signals that came, as a list that grows. A second SIGTERM is taken for the first: who ends a whole job
    sends one to a process and to its parent, which passes its own on. Outside the main thread, which alone gets
    signals, nothing changes.
    """
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def handle(number: int, _frame: object) -> None:
        twice = number == signal.SIGINT and number in asked
        asked.append(number)
        (again if twice else do)()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
