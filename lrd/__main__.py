"""The command line, `lrd --help`."""

import argparse
import contextlib
import io
import os
import re
import sys
import textwrap
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from lrd import ROOT, UserError, __doc__ as about, __version__
from lrd.cell import settings
from lrd.names import BESIDE, runs_root
from lrd.presets import DEFAULT, preset_names
from lrd.runs import own
from lrd.runs.sources import CALLED_FROM

SET = "any other setting of the cells; `lrd cell --help` lists them"
RUNS = "where run directories lie; a relative path counts from the clone (default: runs)"


def main(argv: list[str] | None = None) -> int:
    """Runs one command. Exit status: 0 done, 1 something failed, 2 input that cannot work, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal whose encoding has no arrow shows a question mark
            stream.reconfigure(errors="replace")
    try:
        args = _parser().parse_args(argv)
        os.environ[CALLED_FROM] = os.getcwd()
        with _runs_of(args):
            status = args.run(args)
        if sys.stdout:  # none where a shell has closed it
            sys.stdout.flush()
        return status
    except UserError as error:
        print(f"lrd: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `lrd status tiny | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a disk that is full or cannot be written, say
        print(f"lrd: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lrd: interrupted; the same command goes on from here", file=sys.stderr)
        return 130


@contextlib.contextmanager
def _runs_of(args: argparse.Namespace) -> Iterator[None]:
    """Presets of one's own are those of the runs at hand, for this command and the processes that it starts.

    A preset that is given by its file gets its name. The files that it names are looked for beside it.
    """
    before = {name: os.environ.get(name) for name in ("LRD_RUNS", BESIDE)}
    try:
        if "runs" in args:
            os.environ["LRD_RUNS"] = str(runs_root(args.runs))
            if getattr(args, "preset", "").endswith(".toml"):
                args.preset = own.adopt(args.preset, args.runs)
            if "preset" in args:
                os.environ[BESIDE] = "\n".join(own.folders(args.preset, args.runs))
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ |= {} if value is None else {name: value}


class _Parser(argparse.ArgumentParser):
    """Refuses in one sentence, as everything else does."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; `{self.prog} --help` says what there is")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="lrd", description=about)
    parser.add_argument("--version", action="version", version=f"lrd {__version__}")
    parser.set_defaults(run=lambda args: parser.error(f"give a command: {', '.join(COMMANDS)}"))
    commands = parser.add_subparsers(metavar="COMMAND")
    for name, (run, what, arguments) in COMMANDS.items():
        sub = commands.add_parser(name, help=what, description=what)
        sub.set_defaults(run=run, command=name)
        for argument in arguments.split():
            sub.add_argument(argument.strip("[]"), **ARGUMENTS[argument])
        if name == "cell":
            sub.formatter_class, sub.epilog = argparse.RawDescriptionHelpFormatter, _settings_table()
    return parser


def _testbed(args) -> int:
    from lrd.testbed import build

    print(build.show(args.preset, build.build(args.preset)))
    return 0


def _cell(args) -> int:
    from lrd.cell import Cell
    from lrd.matrix import execute, plan

    overrides = _settings(args.set)
    given = {key: getattr(args, key) for key in ("regime", "rank", "seed") if getattr(args, key) is not None}
    cell = Cell.load(args.preset, **given, **overrides)
    for run in plan.check([cell], args.runs, args.other_code):
        print(f"{cell.name}: {run.finished_already}")
        return 0
    path = _from_here(runs_root(args.runs) / cell.preset / cell.name)
    print(f"{cell.name}: {path}", flush=True)
    state, reason, traceback = execute.run_cell(cell, overrides, args.runs, show=True, other_code=args.other_code)
    if "/rewards/" in traceback:  # a reward may be one's own, and its writer looks for the line
        print(traceback.rstrip(), file=sys.stderr, flush=True)
    if state == "finished":
        print(f"{cell.name}: {reason or state}")  # the reason says that another launch has finished it meanwhile
    else:
        print(f"{cell.name}: {state}{f' ({reason})' if reason else ''}; see {path}/cell.ipynb")
    return 0 if state == "finished" else 1


def _matrix(args) -> int:
    from lrd.matrix import launch

    return launch.run(
        args.preset,
        {"regime": args.regimes, "rank": args.ranks, "seed": args.seeds},
        _settings(args.set),
        jobs=args.jobs,
        address=args.address,
        gpus_per_cell=args.gpus_per_cell,
        runs=args.runs,
        other_code=args.other_code,
    )


def _study(args) -> int:
    from nbclient.exceptions import DeadKernelError
    from papermill import PapermillExecutionError

    from lrd.matrix import execute, notebook

    name = args.command
    path = _from_here(runs_root(args.runs) / args.preset / name / f"{name}.ipynb")
    try:
        execute.run_study(name, args.preset, _settings(args.set), args.runs)
        print(path)
        return 0
    except PapermillExecutionError as error:
        print(notebook.plain(str(error)).rstrip(), file=sys.stderr)
        why = f"{error.ename}: {error.evalue}".splitlines()[0]
    except DeadKernelError:
        why = "its kernel died"
    except OSError as error:  # a full disk's names no file
        why = str(error)
    print(f"lrd: {name} failed: {why}; see {path}", file=sys.stderr)
    return 1


def _status(args) -> int:
    from lrd.runs import status

    print((status.as_json if args.json else status.table)(args.preset, _there(args.runs)))
    return 0


def _sync(args) -> int:
    from lrd.runs.sync import sync

    refused = 0
    for source in args.sources:
        verdicts = sync(source, args.runs, unfinished=args.all)
        for verdict in verdicts:
            print(f"{verdict.what:<8} {verdict.cell}: {verdict.why}")
        counts = Counter(verdict.what for verdict in verdicts)
        print(
            f"{source}: {', '.join(f'{counts[what]} {what}' for what in ('copied', 'skipped', 'refused'))}", flush=True
        )
        refused += counts["refused"]
    return 1 if refused else 0


def _pack(args) -> int:
    from lrd.cell import grid
    from lrd.runs.directory import state
    from lrd.runs.files import pack

    below, cells = runs_root(_there(args.runs)) / args.preset, grid(args.preset)
    finished = [path for cell in cells if state(path := below / cell.name) == "finished"]
    for path in [*finished, *([below / "baseline"] if state(below / "baseline") == "finished" else [])]:
        pack(path)
    size = sum(file.stat().st_size for path in finished for file in path.iterdir() if file.is_file())
    print(f"{args.preset}: {len(finished)} of {len(cells)} cells are finished and packed, {size / 1e6:.1f} MB")
    return 0


def _doctor(args) -> int:
    from lrd.matrix import doctor

    todo = 0
    for finding in doctor.examine(args.preset, args.runs):
        print(f"{'ok ' if finding.ok else 'DO '} {finding.what:<11} {finding.said}", flush=True)
        todo += not finding.ok
    print(f"{f'{todo} to do before ' if todo else ''}preset {args.preset!r} can run here")
    return 1 if todo else 0


def _book(args) -> int:
    from lrd.report import book

    return book.build()


def _publish(args) -> int:
    from lrd.report import publish

    print(publish.write(args.preset, _there(args.runs)))
    return 0


def _bench(args) -> int:
    from lrd.cell import Cell
    from lrd.checks import bench, bench_gpu
    from lrd.names import is_path

    of_the_hub = not is_path(Cell.load(args.preset, regime="outcome", rank=1, seed=0).student)
    print((bench_gpu if of_the_hub else bench).run(args.preset))
    return 0


# What names a cell has an argument of its own.
COORDINATES = {"preset": "it is the first argument"} | {
    key: f"give --{key} (for a matrix, --{key}s)" for key in ("regime", "rank", "seed")
}


def _settings(pairs: list[str]) -> dict[str, Any]:
    """`key=value` with the value read as TOML; what is no TOML value is a string."""
    given = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise UserError(f"--set takes KEY=VALUE, not {pair!r}")
        if key in COORDINATES:
            raise UserError(f"--set cannot change {key!r}; {COORDINATES[key]}")
        given[key] = text
        if re.fullmatch(r"[+-]?(\d+\.|\.\d+)(e[+-]?\d+)?", text, re.ASCII | re.IGNORECASE):  # TOML knows no `.5`
            given[key] = float(text)
        with contextlib.suppress(ValueError, RecursionError):  # no TOML; more digits than Python reads; nested deep
            table = tomllib.loads(f"value = {text}")
            given[key] = table["value"] if len(table) == 1 else text  # a newline would begin another key
    return given


def _settings_table() -> str:
    """Every setting of a cell, as the end of a help text."""
    lines = ["settings, for --set; a value is TOML, or else a text; without a default the preset gives one:", ""]
    for key, kind, default, what in settings():
        if key in COORDINATES:
            continue
        text = f"  {key:<23}{what} ({kind}{f'; default {default}' if default else ''})"
        lines += textwrap.wrap(text, 100, subsequent_indent=" " * 25, break_on_hyphens=False, break_long_words=False)
    return "\n".join(lines)


def _directory(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("it is empty; give a directory")
    return text


def _there(runs: str | None) -> str | None:
    """The directory that runs are read from, as it was given. Raises `UserError` where there is none."""
    if runs is not None and not runs_root(runs).is_dir():
        raise UserError(f"--runs {runs!r} is no directory (tried {runs_root(runs)}; paths count from {ROOT})")
    return runs


def _from_here(path: Path) -> str:
    """A path as the shell can use it: from its own directory where it lies below that, else whole."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


KNOWN = ", ".join(preset_names())
ARGUMENTS: dict[str, dict[str, Any]] = {
    "preset": {"help": f"one of {KNOWN}, or a TOML file of your own"},
    "[preset]": {"nargs": "?", "default": DEFAULT, "help": f"one of {KNOWN}, or a TOML file of your own ({DEFAULT})"},
    "--regime": {"help": "the reward, unless the preset has one alone; MODULE:FUNCTION for one of your own"},
    "--rank": {"help": "a LoRA rank, or 'full' for full fine-tuning, unless the preset has one alone"},
    "--seed": {
        "type": int,
        "help": "of prompts, samples and the adapter's first weights, unless the preset has one alone",
    },
    "--regimes": {"nargs": "+", "help": "in place of the preset's: the rewards"},
    "--ranks": {"nargs": "+", "help": "in place of the preset's: LoRA ranks, and 'full'"},
    "--seeds": {"nargs": "+", "type": int, "help": "in place of the preset's"},
    "--set": {"action": "append", "default": [], "metavar": "KEY=VALUE", "help": SET},
    "--jobs": {
        "type": int,
        "metavar": "N",
        "help": "cells at a time (default: what the cores allow; on a cluster, all)",
    },
    "--address": {"metavar": "HOST:PORT", "help": "a running Ray cluster (default: RAY_ADDRESS, else none)"},
    "--gpus-per-cell": {"type": float, "metavar": "N", "help": "in place of the preset's; 0.5: two on one"},
    "--other-code": {"action": "store_true", "help": "go on from a checkpoint though the code has changed since"},
    "--json": {"action": "store_true", "help": "the same for machines"},
    "sources": {"nargs": "+", "metavar": "SOURCE", "help": "a runs directory, host:path or a path from here"},
    "--all": {"action": "store_true", "help": "cells that are not finished as well"},
    "--runs": {"type": _directory, "metavar": "DIR", "help": RUNS},
}
COMMANDS = {  # what runs, what it does, and its arguments
    "testbed": (_testbed, "train a preset's own student, teacher and PRM", "preset"),
    "cell": (
        _cell,
        "run one cell of the matrix through its notebook",
        "preset --regime --rank --seed --set --other-code --runs",
    ),
    "matrix": (
        _matrix,
        "run every cell that is not finished, side by side",
        "preset --regimes --ranks --seeds --set --jobs --address --gpus-per-cell --other-code --runs",
    ),
    "status": (_status, "the state of every cell, from the files alone", "preset --json --runs"),
    "sync": (_sync, "gather the runs that other hosts kept on disks of their own", "sources --all --runs"),
    "pack": (_pack, "compress the logs of finished cells, for a repository to keep them", "preset --runs"),
    "baseline": (
        _study,
        "measure the untrained student and its teacher: greedy pass@1 and sampled pass@k",
        "preset --set --runs",
    ),
    "rewards": (
        _study,
        "score one batch of rollouts with every reward: the pre-flight check of a reward",
        "preset --set --runs",
    ),
    "doctor": (_doctor, "what a preset's cells need, and whether this host has it", "[preset] --runs"),
    "publish": (
        _publish,
        "keep what the book needs of a preset's runs and models, in runs/published/",
        "preset --runs",
    ),
    "bench": (_bench, "time our step and sampler against TRL's and transformers'", "preset"),
    "book": (_book, "build the book from what lies in runs/", ""),
}


if __name__ == "__main__":
    sys.exit(main())
