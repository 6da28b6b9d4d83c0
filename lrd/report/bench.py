"""The words and tables of notebooks/bench.ipynb: what `lrd bench` measured. Torch-free."""

import math
from collections.abc import Sequence

from lrd.analysis import timings
from lrd.analysis.timings import Bench
from lrd.report import display
from lrd.report.text import NOTHING, arm_name
from lrd.results import published

NAMES = (
    "gpu date prompts samples prompt_tokens completion_tokens least hours packages copy rate headline cold warm token "
    "token_least"
)


def glued(benches: Sequence[Bench], preset: str) -> dict[str, str]:
    """What the page's sentences say of the last measurement and of a preset's cells, keyed by their glued names."""
    theirs = published()["cost"]
    texts = {"their_step": f"{theirs['step_seconds']:.1f}", "their_hours": f"{theirs['gpu_hours']:.0f}"}
    texts |= dict.fromkeys(NAMES.split(), NOTHING)
    if not benches:
        return texts | {"headline": "Nothing has been measured yet: `lrd bench paper` does, on a GPU host."}
    return texts | _measured(benches[-1], preset)


def _measured(bench: Bench, preset: str) -> dict[str, str]:
    packages = [f"{name} {version}" for name, version in bench.packages.items() if version]
    token, least = timings.decode_times(bench)
    numbers = {
        "least": (sum(bench.roofline.values()) if bench.roofline else math.nan, 1),
        "copy": (bench.ceilings.get("copy_tb_s", math.nan), 1),
        "rate": (bench.ceilings.get("bf16_tflop_s", math.nan), 0),
        "cold": (timings.start_seconds(bench, "cold"), 0),
        "warm": (timings.start_seconds(bench, "warm"), 0),
        "token": (token, 1),
        "token_least": (least, 1),
        "hours": (timings.matrix_hours(bench, preset).hours.sum(skipna=False), 0),
    }
    return {
        "gpu": bench.gpu,
        "date": bench.date,
        **{name: f"{number:,}" for name, number in bench.shapes.items()},
        "packages": ", ".join(packages) or NOTHING,
        **{name: f"{x:,.{digits}f}" if x >= 0 else NOTHING for name, (x, digits) in numbers.items()},
        "headline": headline(bench),
    }


def headline(bench: Bench) -> str:
    """A step of ours against one of TRL's trainer, in one sentence."""
    texts = [
        f"{arm_name(row.arm)} {row.step:.1f} s against {row.theirs:.1f} s ({row.ratio:.1f} times as fast)"
        for row in timings.beside(bench, "trl").itertuples()
    ]
    if not texts:
        return "TRL's trainer was not measured beside ours."
    return f"A step of ours against one of TRL's trainer: {', '.join(texts)}."


def step_table(bench: Bench | None) -> display.Html:
    """Seconds of a step and its parts, and peak memory, one row a measurement."""
    if bench is None:
        return display.Html("<p>Not measured yet: <code>lrd bench paper</code> does, on a GPU host.</p>")
    rows = []
    for row, parts in zip(bench.rows.itertuples(), bench.parts.to_numpy()):
        seconds = [display.number_or_dash(value, 2) for value in (row.step, *parts)]
        short = row.completion_tokens < bench.shapes["completion_tokens"]
        tokens = f", {row.completion_tokens:.0f} tokens" if short else ""
        name = f"{row.who}: {row.regime}, {arm_name(row.arm)}{tokens}"
        rows.append((name, *seconds, display.number_or_dash(row.peak_gib, 1)))
    return display.table(["who, regime, arm", "step (s)", *bench.parts.columns, "peak (GiB)"], rows)


def token_table(bench: Bench | None) -> display.Html:
    """Milliseconds of a token of all rows, one row an engine."""
    if bench is None or not bench.tokens:
        return display.Html("<p>Not measured yet.</p>")
    parts = timings.token_parts(bench)
    rows = [
        (engine, *(display.number_or_dash(ms, 2) for ms in each)) for engine, *each in parts.itertuples(index=False)
    ]
    return display.table(list(parts), rows)


def cost_table(bench: Bench | None, preset: str) -> display.Html:
    """GPU-hours of a preset's cells by regime and arm, and of all of them."""
    if bench is None:
        return display.Html("<p>Not known before a step has been measured.</p>")
    hours = timings.matrix_hours(bench, preset)
    rows = [
        (f"{row.regime}, {arm_name(row.arm)}", "" if row.measured else "≈", display.number_or_dash(row.step, 1),
         row.cells, display.number_or_dash(row.hours, 2))
        for row in hours.itertuples()
    ]  # fmt: skip
    total = ("all", "", "", hours.cells.sum(), display.number_or_dash(hours.hours.sum(skipna=False), 1))
    return display.table(["regime, arm", "", "step (s)", "cells", "GPU-hours"], [*rows, total])
