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
from pathlib import Path
from typing import Any, NoReturn

from lrd import UserError, __doc__ as about, __version__
from lrd.cell import DEFAULT, presets, settings, tried
from lrd.runs.directory import notebook_ended
from lrd.runs.files import runs_root

SET = "a setting of all cells; `lrd cell --help` lists them"


def _directory(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("it is empty; give a directory")
    return text


RUNS: dict[str, Any] = {
    "metavar": "DIR",
    "type": _directory,
    "help": "where run directories lie; a relative path counts from the clone (default: runs)",
}

OTHER_CODE = "go on from a checkpoint though the code has changed since"


def main(argv: list[str] | None = None) -> int:
    """Runs one command. Exit status: 0 done, 1 something failed, 2 input that cannot work, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal whose encoding has no arrow shows a question mark
            stream.reconfigure(errors="replace")
    try:
        args = _parser().parse_args(argv)
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


class _Parser(argparse.ArgumentParser):
    """Refuses in one sentence, as everything else does."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; `{self.prog} --help` says what there is")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="lrd", description=about)
    parser.add_argument("--version", action="version", version=f"lrd {__version__}")
    parser.set_defaults(run=lambda args: parser.error(f"give a command: {', '.join(commands.choices)}"))
    commands = parser.add_subparsers(metavar="COMMAND")

    def command(name: str, run, what: str, **options: Any) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=what, description=what, **options)
        sub.set_defaults(run=run)
        sub.add_argument("preset", help=f"one of {', '.join(presets())}")
        return sub

    command("testbed", _testbed, "train a preset's own student, teacher and PRM from scratch")

    cell = command(
        "cell",
        _cell,
        "run one cell of the matrix through its notebook",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_settings_table(),
    )
    cell.add_argument("--regime", help="the reward, unless the preset has one alone")
    cell.add_argument("--rank", help="a LoRA rank, or 'full' for full fine-tuning")
    cell.add_argument("--seed", type=_whole, help="decides prompts, samples and the adapter's first weights")
    cell.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="any other setting of the cell: see below"
    )
    cell.add_argument("--other-code", action="store_true", help=OTHER_CODE)
    cell.add_argument("--runs", **RUNS)

    matrix = command("matrix", _matrix, "run every cell that is not finished, side by side")
    matrix.add_argument("--regimes", nargs="+", help="in place of the preset's: the rewards")
    matrix.add_argument("--ranks", nargs="+", help="in place of the preset's: LoRA ranks, and 'full'")
    matrix.add_argument("--seeds", nargs="+", type=_whole, help="in place of the preset's")
    matrix.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=SET)
    matrix.add_argument(
        "--jobs",
        type=_whole,
        metavar="N",
        help="cells at a time (default: what the cores allow; on a cluster, all)",
    )
    matrix.add_argument(
        "--address", metavar="HOST:PORT", help="a running Ray cluster (default: RAY_ADDRESS, else none)"
    )
    matrix.add_argument("--gpus-per-cell", type=_number, metavar="N", help="in place of the preset's; 0.5: two on one")
    matrix.add_argument("--other-code", action="store_true", help=OTHER_CODE)
    matrix.add_argument("--runs", **RUNS)

    status = command("status", _status, "the state of every cell, from the files alone")
    status.add_argument("--json", action="store_true", help="the same for machines")
    status.add_argument("--runs", **RUNS)

    sync = commands.add_parser("sync", help="gather the runs that other hosts kept on disks of their own")
    sync.set_defaults(run=_sync)
    sync.add_argument("sources", nargs="+", metavar="SOURCE", help="a runs directory, host:path or a path from here")
    sync.add_argument("--all", action="store_true", help="cells that are not finished as well")
    sync.add_argument("--runs", **RUNS)

    pack = command("pack", _pack, "compress the logs of finished cells, for a repository to keep them")
    pack.add_argument("--runs", **RUNS)

    for name, what in (
        ("baseline", "measure the untrained student and its teacher: greedy pass@1 and sampled pass@k"),
        ("rewards", "score one batch of rollouts with every reward: the pre-flight check of a reward"),
    ):
        study = command(name, _study, what)
        study.set_defaults(notebook=name)
        study.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=SET)
        study.add_argument("--runs", **RUNS)

    doctor = commands.add_parser("doctor", help="what a preset's cells need, and whether this host has it")
    doctor.set_defaults(run=_doctor)
    doctor.add_argument("preset", nargs="?", default=DEFAULT, help=f"one of {', '.join(presets())} ({DEFAULT})")
    doctor.add_argument("--runs", **RUNS)

    publish = command("publish", _publish, "keep what the book needs of a preset's runs and models, in runs/published/")
    publish.add_argument("--runs", **RUNS)

    command("bench", _bench, "time our step and sampler against TRL's and transformers'")

    book = commands.add_parser("book", help="build the book from what lies in runs/")
    book.set_defaults(run=_book)
    return parser


def _testbed(args) -> int:
    from lrd import testbed

    print(testbed.show(args.preset, testbed.build(args.preset)))
    return 0


def _cell(args) -> int:
    from lrd import matrix
    from lrd.cell import Cell

    overrides = _settings(args.set)
    given = {key: getattr(args, key) for key in ("regime", "rank", "seed") if getattr(args, key) is not None}
    cell = Cell.load(args.preset, **given, **overrides)
    for run in matrix.check([cell], args.runs, args.other_code):
        if notebook_ended(run.path):
            print(f"{cell.name}: {run.finished_already}")
            return 0
    path = _from_here(runs_root(args.runs) / cell.preset / cell.name)
    print(f"{cell.name}: {path}", flush=True)
    state, reason, traceback = matrix.execute(cell, overrides, args.runs, show=True, other_code=args.other_code)
    if "/rewards/" in traceback:  # a reward may be one's own, and its writer looks for the line
        print(traceback.rstrip(), file=sys.stderr, flush=True)
    if state == "finished":
        print(f"{cell.name}: {reason or state}")  # the reason says that another launch has finished it meanwhile
    else:
        print(f"{cell.name}: {state}{f' ({reason})' if reason else ''}; see {path}/cell.ipynb")
    return 0 if state == "finished" else 1


def _matrix(args) -> int:
    from lrd import matrix

    narrowed = {"regime": args.regimes, "rank": args.ranks, "seed": args.seeds}
    return matrix.run(
        args.preset,
        narrowed,
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

    from lrd import matrix

    path = _from_here(runs_root(args.runs) / args.preset / args.notebook / f"{args.notebook}.ipynb")
    try:
        matrix.study(args.notebook, args.preset, _settings(args.set), args.runs)
        print(path)
        return 0
    except PapermillExecutionError as error:
        print(matrix.plain(str(error)).rstrip(), file=sys.stderr)
        why = f"{error.ename}: {error.evalue}".splitlines()[0]
    except DeadKernelError:
        why = "its kernel died"
    except OSError as error:  # a full disk's names no file
        why = str(error)
    print(f"lrd: {args.notebook} failed: {why}; see {path}", file=sys.stderr)
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
            f"{source}: " + ", ".join(f"{counts[what]} {what}" for what in ("copied", "skipped", "refused")), flush=True
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
    print(
        f"{todo} to do before preset {args.preset!r} can run here" if todo else f"preset {args.preset!r} can run here"
    )
    return 1 if todo else 0


def _book(args) -> int:
    from lrd.report import book

    return book.build()


def _publish(args) -> int:
    from lrd.report import publish

    print(publish.write(args.preset, _there(args.runs)))
    return 0


def _bench(args) -> int:
    from lrd.cell import Cell, is_path
    from lrd.checks import bench, bench_gpu

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


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None


def _there(runs: str | None) -> str | None:
    """The directory that runs are read from, as it was given. Raises `UserError` where there is none."""
    if runs is not None and not runs_root(runs).is_dir():
        raise UserError(f"--runs {runs!r} is no directory ({tried(runs_root(runs))})")
    return runs


def _from_here(path: Path) -> str:
    """A path as the shell can use it: from its own directory where it lies below that, else whole."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


if __name__ == "__main__":
    sys.exit(main())
