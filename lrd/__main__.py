"""The command line, `lrd --help`."""

import argparse
import io
import os
import sys
import tomllib
from collections import Counter
from typing import Any

from lrd import UserError
from lrd.cell import DEFAULT, presets

OTHER_CODE = "go on from a checkpoint though the code has changed since"


def main(argv: list[str] | None = None) -> int:
    """Runs one command. Exit status: 0 done, 1 something failed, 2 input that cannot work, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal whose encoding has no arrow shows a question mark
            stream.reconfigure(errors="replace")
    args = _parser().parse_args(argv)
    try:
        status = args.run(args)
        sys.stdout.flush()
        return status
    except UserError as error:
        print(f"lrd: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `lrd status tiny | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("lrd: interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lrd", description=__import__("lrd").__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run, what: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=what, description=what)
        sub.set_defaults(run=run)
        sub.add_argument("preset", help=f"one of {', '.join(presets())}")
        return sub

    command("testbed", _testbed, "train a preset's own student, teacher and PRM from scratch")

    cell = command("cell", _cell, "run one cell of the matrix through its notebook")
    cell.add_argument("--regime")
    cell.add_argument("--rank", help="a LoRA rank, or 'full' for full fine-tuning")
    cell.add_argument("--seed", type=int)
    cell.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any other setting of the cell")
    cell.add_argument("--other-code", action="store_true", help=OTHER_CODE)
    cell.add_argument("--runs", metavar="DIR", help="where run directories lie, from the clone (default: runs)")

    matrix = command("matrix", _matrix, "run every cell that is not finished, side by side")
    matrix.add_argument("--regimes", nargs="+")
    matrix.add_argument("--ranks", nargs="+")
    matrix.add_argument("--seeds", nargs="+", type=int)
    matrix.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of all cells")
    matrix.add_argument("--jobs", type=int, metavar="N", help="cells at a time")
    matrix.add_argument(
        "--address", metavar="HOST:PORT", help="a running Ray cluster (default: RAY_ADDRESS, else none)"
    )
    matrix.add_argument("--gpus-per-cell", type=float, metavar="N", help="in place of the preset's; 0.5: two share one")
    matrix.add_argument("--other-code", action="store_true", help=OTHER_CODE)
    matrix.add_argument("--runs", metavar="DIR", help="where run directories lie, from the clone (default: runs)")

    status = command("status", _status, "the state of every cell, from the files alone")
    status.add_argument("--json", action="store_true", help="the same for machines")
    status.add_argument("--runs", metavar="DIR", help="where run directories lie, from the clone (default: runs)")

    sync = commands.add_parser("sync", help="gather the runs that other hosts kept on disks of their own")
    sync.set_defaults(run=_sync)
    sync.add_argument("sources", nargs="+", metavar="SOURCE", help="a runs directory, as path or host:path")
    sync.add_argument("--all", action="store_true", help="cells that are not finished as well")
    sync.add_argument("--runs", metavar="DIR", help="where to, from the clone (default: runs)")

    pack = command("pack", _pack, "compress the logs of finished cells, for a repository to keep them")
    pack.add_argument("--runs", metavar="DIR", help="where run directories lie, from the clone (default: runs)")

    for name, what in (
        ("baseline", "measure the untrained student and its teacher: greedy pass@1 and sampled pass@k"),
        ("rewards", "score one batch of rollouts with every reward: the pre-flight check of a reward"),
    ):
        study = command(name, _study, what)
        study.set_defaults(notebook=name)
        study.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the cells")
        study.add_argument("--runs", metavar="DIR", help="where run directories lie, from the clone (default: runs)")

    doctor = commands.add_parser("doctor", help="what a preset's cells need, and whether this host has it")
    doctor.set_defaults(run=_doctor)
    doctor.add_argument("preset", nargs="?", default=DEFAULT, help=f"one of {', '.join(presets())} ({DEFAULT})")
    doctor.add_argument("--runs", metavar="DIR", help="where run directories will lie, from the clone (default: runs)")

    publish = command("publish", _publish, "keep what the book needs of a preset's runs and models: book/PRESET.json")
    publish.add_argument("--runs", metavar="DIR", help="where run directories lie, from the clone (default: runs)")

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
    where = {key: getattr(args, key) for key in ("regime", "rank", "seed") if getattr(args, key) is not None}
    cell = Cell.load(args.preset, **where, **overrides)
    state, reason, _ = matrix.execute(cell, overrides, args.runs, show=True, other_code=args.other_code)
    said = f"{state} ({reason})" if reason else state
    print(f"{cell.name}: {reason if state == 'finished' and reason else said}")  # finished before
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
    from lrd import matrix

    print(matrix.study(args.notebook, args.preset, _settings(args.set), args.runs))
    return 0


def _status(args) -> int:
    from lrd import status

    print((status.as_json if args.json else status.table)(args.preset, args.runs))
    return 0


def _sync(args) -> int:
    from lrd.sync import sync

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
    from lrd.run import pack, runs_root, state

    below, cells = runs_root(args.runs) / args.preset, grid(args.preset)
    finished = [path for cell in cells if state(path := below / cell.name) == "finished"]
    for path in [*finished, *([below / "baseline"] if state(below / "baseline") == "finished" else [])]:
        pack(path)
    size = sum(file.stat().st_size for path in finished for file in path.iterdir() if file.is_file())
    print(f"{args.preset}: {len(finished)} of {len(cells)} cells are finished and packed, {size / 1e6:.1f} MB")
    return 0


def _doctor(args) -> int:
    from lrd import doctor

    todo = 0
    for finding in doctor.examine(args.preset, args.runs):
        print(f"{'ok ' if finding.ok else 'DO '} {finding.what:<11} {finding.said}", flush=True)
        todo += not finding.ok
    print(
        f"{todo} to do before preset {args.preset!r} can run here" if todo else f"preset {args.preset!r} can run here"
    )
    return 1 if todo else 0


def _book(args) -> int:
    from lrd import book

    return book.build()


def _publish(args) -> int:
    from lrd import publish

    print(publish.write(args.preset, args.runs))
    return 0


def _bench(args) -> int:
    from lrd import bench, bench_gpu
    from lrd.cell import Cell

    of_the_hub = not Cell.load(args.preset, regime="outcome", rank=1, seed=0).student.startswith(".")
    print((bench_gpu if of_the_hub else bench).run(args.preset))
    return 0


# What names a cell has an argument of its own.
COORDINATES = {"preset": "it is the first argument"} | {
    key: f"give --{key} (for a matrix, --{key}s)" for key in ("regime", "rank", "seed")
}


def _settings(pairs: list[str]) -> dict[str, Any]:
    """`key=value` with the value read as TOML; what is no TOML value is a string."""
    settings = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise UserError(f"--set takes KEY=VALUE, not {pair!r}")
        if key in COORDINATES:
            raise UserError(f"--set cannot change {key!r}; {COORDINATES[key]}")
        try:
            settings[key] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            settings[key] = text
    return settings


if __name__ == "__main__":
    sys.exit(main())
