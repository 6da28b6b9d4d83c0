"""One notebook through papermill, in a kernel of its own: the executed copy is saved as it goes, without secrets."""

import contextlib
import os
import re
import sys
from pathlib import Path
from typing import Any

from lrd import ROOT, UserError
from lrd.runs.directory import STDERR, Held
from lrd.runs.files import Unreadable, write_text
from lrd.runs.kernel import sockets
from lrd.runs.redact import redact

# A kernel looks for its parent once a second and ends when that is gone. One whose parent died before its first look
# takes who adopted it for the parent, unless that is process 1 (on desktops it is not); this comes before that look.
TETHER = "--IPKernelApp.exec_lines=import os; os.getppid() == int(os.environ['JPY_PARENT_PID']) or os._exit(1)"
KERNEL_SECONDS = 600  # that a kernel may take to start: a busy machine, a cold network disk


def execute(name: str, output: Path, parameters: dict[str, Any], runs: str | None, show: bool) -> Any:
    """Executes `notebooks/<name>.ipynb`, its copy saved as it goes; returns papermill's error, if there is one.

    `show` passes what the kernel prints on. A `UserError` in the notebook is raised as one.
    """
    import papermill
    from papermill.iorw import papermill_io

    where = os.path.relpath(output, ROOT) if output.is_relative_to(ROOT) else str(output)
    papermill_io.register(where, _Copy())
    parameters |= {"runs": runs} if runs else {}
    try:
        # From the clone, so that the executed copy names no path of this machine.
        with (
            contextlib.closing(_Stderr(output.parent / STDERR, show)) as warned,
            sockets() as address,
            contextlib.chdir(ROOT),
        ):
            papermill.execute_notebook(
                f"notebooks/{name}.ipynb",
                where,
                parameters,
                kernel_name="python3",
                cwd=str(ROOT),
                progress_bar=False,
                start_timeout=KERNEL_SECONDS,
                extra_arguments=[TETHER],
                autosave_cell_every=5,
                stdout_file=_Stdout() if show else None,
                stderr_file=warned,
                coalesce_streams=True,
                config=_config(address),
            )
    except papermill.PapermillExecutionError as error:
        for kind in (UserError, Held, Unreadable):
            if error.ename == kind.__name__:
                raise kind(error.evalue) from None
        return error
    return None


def _config(address: str) -> Any:
    from traitlets.config import Config

    return Config(
        # Ports picked by many kernels at once collide now and then; a socket in a directory of its own cannot.
        KernelManager={"transport": "ipc", "ip": address},
        # The last output of a cell may come late on a busy machine; the library waits 4 s for it.
        NotebookClient={"kernel_manager_class": "lrd.runs.kernel.Kernel", "iopub_timeout": 60},
    )


def plain(text: str) -> str:
    """Without the colours that IPython and Ray give to tracebacks."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


class _Copy:
    """How papermill writes an executed copy: whole or not at all, and without secrets."""

    def write(self, text: str, path: str) -> None:
        write_text(Path(path), text)

    def pretty_path(self, path: str) -> str:
        return path


class _Stdout:
    """Where a kernel's output is shown: who reads it may leave (`lrd cell tiny | head`), and the cell goes on."""

    def write(self, text: str) -> None:
        with contextlib.suppress(BrokenPipeError):
            print(text, end="")

    def flush(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            print(end="", flush=True)


class _Stderr:
    """What a kernel writes to stderr, its warnings above all: kept beside its notebook, line by line, and shown."""

    def __init__(self, path: Path, show: bool):
        self._path, self._show, self._rest = path, show, ""

    def write(self, text: str) -> None:
        if self._show:
            with contextlib.suppress(BrokenPipeError):
                print(redact(text), end="", file=sys.stderr, flush=True)
        *lines, self._rest = (self._rest + text).split("\n")
        # A full disk has failed the cell already.
        with contextlib.suppress(OSError):
            if lines:
                with self._path.open("a", encoding="utf-8") as file:
                    file.writelines(redact(line) + "\n" for line in lines)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        if self._rest:
            self.write("\n")
