"""The setup page: where the models come from, what their scale leaves out, what was tried; the tables of settings."""

import html
import itertools
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from lrd import ROOT
from lrd.analysis import budget, sweep
from lrd.analysis.fair import FULL
from lrd.analysis.headline import Line
from lrd.cell import Cell, grid
from lrd.names import is_path
from lrd.presets import read_preset
from lrd.report.baseline import pass_at_k
from lrd.report.display import Html, number_or_dash, table
from lrd.report.text import NOTHING, arm_name, counted, listed
from lrd.results import Results, card, published, read_provenance, root

OTHERS = {"teacher": "the teacher", "prm": "the process reward model"}
ARMS = ((False, "adapters"), (True, "full fine-tuning"))
TASKS = {
    "chain": "chains of one-digit arithmetic modulo ten",
    "arithmetic": "arithmetic told as short stories, of five levels of difficulty",
}


def glued(preset: str, card: dict[str, Any] | None) -> dict[str, str]:
    """Keyed by the names that they are glued under."""
    cells = grid(preset)
    return {
        "preset_name": preset,
        "cells_count": str(len(cells)),
        "setup_models": models(cells[0], card),
        "setup_tried": tried_count(preset),
    }


def about(preset: str, card: dict[str, Any] | None) -> dict[str, str]:
    """What the start page glues of a preset's models."""
    cell = grid(preset)[0]
    return {"about_models": models(cell, card), "about_scale": scale(cell, card)}


def models(cell: Cell, card: dict[str, Any] | None) -> str:
    """Where the models come from and how large they are."""
    task = TASKS.get(cell.train_data, cell.train_data)
    if not is_path(cell.student):
        return f"The models are the original's: {listed([cell.student, cell.teacher, cell.prm])}."
    if card is None:
        return f"The models of {cell.preset} are trained from scratch on {task}; their card is not at hand."
    size = {role_of(name): _size(model["parameters"]) for name, model in card["models"].items()}
    others = listed([f"{name} {size[role]}" for role, name in OTHERS.items()])
    worlds = sum(role_of(name) == "student" for name in card["models"])
    each = f"{worlds} times from different seeds, all" if worlds > 1 else ""
    start = card.get("recipe", {}).get("start", "scratch")
    return (
        f"The student has {size['student']} parameters, {others}. All three are trained from {start}, "
        f"{f'{each} ' if each else ''}in {card['seconds'] / 60:.0f} minutes, on problems that a program writes: {task}."
    )


def role_of(model: str) -> str:
    """`student`, of `student` and of `2/student`: a model's role, in a card of one training or of several."""
    return model.rpartition("/")[2]


def scale(cell: Cell, card: dict[str, Any] | None) -> str:
    """What that scale leaves out; empty where the models are the original's."""
    if not is_path(cell.student):
        return ""
    theirs = budget.shape_of(grid(published()["preset"])[0].student)
    sizes = {role_of(name): model.get("parameters") for name, model in (card or {}).get("models", {}).items()}
    ours = sizes.get("student")
    times = ""
    if theirs and ours:
        factor = float(f"{theirs.parameters / ours:.2g}")
        times = f"; the original's student has about {factor:,.0f} times as many parameters"
    return (
        f"The models have read no text but the task's own: they are no language models, and what holds of them need "
        f"not hold of one{times}."
    )


def _size(parameters: float) -> str:
    """`23.7 million`, `206,688`."""
    return f"{parameters / 1e6:.1f} million" if parameters >= 1e6 else f"{parameters:,.0f}"


def tried(preset: str) -> list[tuple[str, str, str]]:
    """What was tried for a testbed and rejected: the change, what came of it and why it was not kept."""
    entries = tomllib.loads((ROOT / "book" / "tried.toml").read_text(encoding="utf-8")).get(preset, [])
    scores = [[f"{name} {entry[name]:.3f}" for name in ("greedy", "sampled") if name in entry] for entry in entries]
    return [(entry["change"], ", ".join(s) or NOTHING, entry["reason"]) for entry, s in zip(entries, scores)]


def tried_count(preset: str) -> str:
    """How many recipes are on record as rejected, in one sentence."""
    n = len(tried(preset))
    if not n:
        return f"Of preset {preset} no rejected recipe is on record."
    return f"On record for preset {preset}: {counted(n, 'recipe')} that {'was' if n == 1 else 'were'} rejected."


def settings_table(cells: Sequence[Cell]) -> Html:
    """Every setting of a matrix; one that differs between cells shows its values and the cells that have each."""
    rows = []
    for key in cells[0].config:
        by_value: dict[str, list[Cell]] = {}
        for cell in cells:
            value = cell.config[key]
            listed = ", ".join(map(str, value)) or "all" if isinstance(value, list) else ""
            text = listed or ("full" if value is None else repr(value))
            by_value.setdefault(text, []).append(cell)
        if len(by_value) == 1 or key in ("regime", "rank", "seed"):
            shown = ", ".join(text.strip("'") for text in by_value)
        else:
            shown = "; ".join(f"{text} ({_which(those, cells)})" for text, those in by_value.items())
        rows.append((Html(f"<code>{key}</code>"), shown))
    return table(["setting", "value"], rows)


def _which(some: Sequence[Cell], cells: Sequence[Cell]) -> str:
    """The cells that share a value, by the axes that tell them from the others: one, or two; or by name."""
    for count in (1, 2):
        for axes in itertools.combinations(("arm", "regime", "seed", *cells[0].point), count):
            values = [list(dict.fromkeys(_on(axis, cell) for cell in some)) for axis in axes]
            if len(some) == sum(all(_on(a, cell) in known for a, known in zip(axes, values)) for cell in cells):
                return "; ".join(", ".join(known) for known in values)
    return ", ".join(cell.name for cell in some)


def _on(axis: str, cell: Cell) -> str:
    """Where a cell stands on an axis, in words."""
    if axis in ("arm", "regime"):
        return arm_name(cell.arm) if axis == "arm" else cell.regime
    return f"{axis} {cell.seed if axis == 'seed' else cell.point[axis]}"


def card_table(preset: str, card: dict[str, Any] | None, cell: Cell) -> Html:
    """The testbed's card: what each model is and can do; or where the preset's models come from."""
    if card is None:
        names = ", ".join(f"<code>{html.escape(name)}</code>" for name in (cell.student, cell.teacher, cell.prm))
        return Html(
            f"<p>There is no card of <code>{html.escape(preset)}</code>: its models ({names}) were not trained here. "
            f"<code>lrd testbed {html.escape(preset)}</code> trains those that lie below <code>models/</code>.</p>"
        )
    rows = []
    models = card.get("models", {})
    order = ["student", "teacher", "prm", "completer", *map(role_of, models)]
    for model in sorted(models, key=lambda name: (name.rpartition("/")[0], order.index(role_of(name)))):
        about = models[model]
        size = _shape(card.get("recipe", {}), role_of(model))
        scores = [number_or_dash(about.get(name), 3) for name in ("greedy", "pass@1", "pass@4", "pass@8")]
        steps = number_or_dash(about.get("held_out_step_accuracy"), 3)
        if "majority_step_accuracy" in about:
            steps += f" ({number_or_dash(about['majority_step_accuracy'], 3)})"
        prints = about.get("fingerprint", "–")
        rows.append((_named(model), size, number_or_dash(about.get("parameters"), 0), *scores, steps, prints))
    head = ["model", "shape", "parameters", "greedy", "pass@1", "pass@4", "pass@8", "steps", "fingerprint"]
    return table(head, rows)


def _shape(recipe: dict[str, Any], role: str) -> str:
    """A model's shape, or what it was trained from, by its testbed's recipe."""
    section = recipe.get(role, {})
    if shape := section.get("shape"):
        return f"{shape['hidden_size']} wide, {shape['num_hidden_layers']} layers"
    if "start" not in recipe:
        return "as the completer"
    trained = f"adapter of rank {section['adapter']}" if "adapter" in section else "trained in full"
    return f"{recipe['start']}, {trained}"


def _named(model: str) -> str:
    """`student`, and `student, training 2` of one of several."""
    world, _, role = model.rpartition("/")
    return f"{role}, training {world}" if world else role


def baseline_table(preset: str, frame: pd.DataFrame | None) -> Html:
    """Greedy pass@1 and pass@k of student and teacher, with a link to the notebook that measured them."""
    if frame is None:
        return Html(f"<p>Not measured yet: <code>lrd baseline {html.escape(preset)}</code> does.</p>")
    scores = pass_at_k(frame)
    rows = [(model, *values) for model, values in zip(scores.index, scores.to_numpy())]
    link = f"<p><a href='../runs/{html.escape(preset)}/baseline/baseline.html'>The notebook that measured them</a></p>"
    return Html(table(["model", *scores.columns], rows) + link)


def box(results: Results, lines: Sequence[Line], about: Mapping[str, str]) -> list[tuple[str, str]]:
    """What was run, one row a fact."""
    cell = grid(results.preset)[0]
    deposits = listed([f"{line.regime} ({number_or_dash(line.deposits, 0)})" for line in lines])
    ranks = listed([arm[1:] for arm in results.arms if arm != FULL])
    return [
        (
            "algorithm",
            f"GRPO, {cell.steps} steps of {cell.prompts_per_step} prompts × {cell.samples_per_prompt} completions",
        ),
        ("rewards", f"{deposits}; in brackets how many values each puts on an episode at the start"),
        ("arms", f"LoRA of rank {ranks} on all linear layers, and full fine-tuning"),
        ("models", about["about_models"]),
        ("task", f"{TASKS.get(cell.train_data, cell.train_data)}; {cell.eval_problems} test problems"),
        ("learning rates", rates_used(results)),
        ("cost", cost(results)),
    ]


def rates_used(results: Results) -> str:
    """Adapters' and full fine-tuning's rate under each reward, and whether a sweep chose them."""
    used: dict[str, dict[bool, set[float]]] = {}
    for (regime, arm), rate in sweep.in_use(results.preset).items():
        used.setdefault(regime, {}).setdefault(arm == FULL, set()).add(rate)
    texts = [
        " and ".join(
            f"{listed([f'{rate:g}' for rate in sorted(by[full])])} ({name})" for full, name in ARMS if full in by
        )
        for by in used.values()
    ]
    each = "; ".join(f"{text} under {regime}" for regime, text in zip(used, texts))
    return f"{each}. {'Each is the best of its own sweep.' if sweep.of(results.preset) else 'No sweep chose them.'}"


def cost(results: Results) -> str:
    """What the finished cells took of their machine, and their models before them."""
    below, names = root() / results.preset, results.finished.cell
    seconds = sum(s.get("seconds", 0.0) for name in names for s in read_provenance(below / name).get("sessions", []))
    if not seconds:
        return "The time that the runs took is not on record."
    gpus = read_preset(results.preset).get("resources", {}).get("gpus", 0)
    devices = sorted({str(read_provenance(below / name).get("run", {}).get("device")) for name in names})
    hours = f"{seconds * (gpus or 1) / 3600:.1f} {'GPU' if gpus else 'core'}-hours on {listed(devices)}"
    made = card(results.preset)
    models = f", and {made['seconds'] / 60:.0f} minutes to train their models" if made else ""
    return f"{counted(len(names), 'run')} in {hours}{models}"
