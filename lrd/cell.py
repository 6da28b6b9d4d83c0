"""One cell of the study: every hyperparameter, resolved before anything runs.

A preset (`lrd/presets/<name>.toml`) is data: `[axes]` spans the matrix over any fields of `Cell`, `[cell]` holds the
values that all of its cells share, and each `[[override]]` changes some of them for the cells that it matches. An axis
over several fields at once is a table, `[axes.<name>]`, of labels and the fields that each sets. A `[[window]]` leaves,
of the cells that it matches, those with `only` some values of an axis. `base` names another
preset whose values it starts from; `[about]` says in plain text what is asked, what is expected and which statistic
decides. No code asks for a preset's name.
"""

import dataclasses
import difflib
import functools
import inspect
import itertools
import json
import os
import re
import tomllib
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lrd import ROOT, UserError

PRESETS = Path(__file__).parent / "presets"
DEFAULT = "tiny"  # the preset that anyone can run
LLAMA_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A fully resolved cell; defaults are the original's.

    Units: tokens, problems, and steps (one rollout and its updates each).
    What stands behind a field is what `settings` shows.
    """

    preset: str  # a file in lrd/presets/, without its .toml
    regime: str  # the reward
    rank: int | None  # the LoRA adapter's; "full" is full fine-tuning, None in Python
    seed: int  # decides prompts, samples and the adapter's first weights

    # models
    student: str  # the model that is trained: a ./directory of the project, or an id on the Hugging Face Hub
    teacher: str  # the model that distillation learns from
    prm: str  # the process reward model, which scores steps
    dtype: str = "float32"  # precision of forward passes and frozen weights; trained weights have `master_dtype`
    master_dtype: str = "float32"  # precision of trained weights; the original's full fine-tuning has "bfloat16"

    # problems
    train_data: str  # a task ("chain", "arithmetic"), codebook-<keys>x<bits>-<seed>, a .jsonl file, or an id on the Hub
    eval_data: str  # the same for evaluations
    eval_problems: int = 100  # problems of the test split that are asked
    validation_problems: int = 0  # problems of a split apart from it, to choose rates and steps by; 0 is none
    prompt_template: str = "Problem: {problem}\n\nSolution: "  # the prompt, with {problem} in it
    grading: str = "boxed"  # how answers are read; "bare" reproduces the original's verifier

    # rollouts
    prompts_per_step: int = 4  # problems of a rollout
    samples_per_prompt: int = 4  # completions of each, normalized against each other
    engine: str = "torch"  # what samples; "vllm" needs CUDA
    temperature: float = 0.7  # the sampling temperature
    top_p: float = 0.95  # share of the probability that is sampled from; 1 is all
    max_completion_tokens: int = 1536  # where a completion is cut

    # updates
    steps: int = 100  # rollouts of the whole run, each with its updates
    epochs: int = 1  # updates a rollout
    learning_rate: float  # AdamW's, constant
    weight_decay: float = 0.0  # AdamW's
    max_grad_norm: float = 1.0  # a larger gradient is scaled down to it
    clip_epsilon: float = 0.2  # how far the ratio of an update may leave 1
    kl_coef: float = 0.05  # weight of the KL penalty to the base model; 0 is none
    kl_estimator: str = "paper"  # how the penalty is estimated
    loss_aggregation: str = "token"  # what the loss is a mean over; "constant" divides by the longest length
    advantage_epsilon: float = 1e-8  # added to the std that deposits are divided by
    advantage_norm: str = "group"  # deposits are normalized within a prompt's samples; "none": they are not
    logp_temperature: float = 1.0  # of the learner's log-probabilities; the original samples at 0.7 and learns at 1

    # deposits and advantages otherwise than in the original (lrd/rewards/shaping.py, lrd/grpo.py)
    prm_reads: str = "all"  # which steps; "canonical": neither blank lines nor such as stood there before
    deposit_rule: str = "each"  # a step's own, its "difference" to the last one, or one a trajectory: "minimum", "mean"
    overlong_penalty: float = 0.0  # taken from the last deposit of a completion at the longest length
    outcome_weight: float = 0.0  # of the outcome, 0 or 1, added to the last deposit
    to_go: str = "sum"  # of the deposits from a token on, unless each counts for its own token
    advantage_cap: float = 0.0  # largest magnitude of an advantage; 0 is none
    advantage_scale: str = "as is"  # "whitened": mean 0 and std 1 over a batch's tokens

    # adapter
    lora_alpha: float = 32  # the adapter's output is scaled by lora_alpha / rank
    lora_targets: tuple[str, ...] = LLAMA_LAYERS  # names of the adapted linear layers
    lora_layers: tuple[int, ...] = ()  # numbers of the adapted decoder layers, from 0; [] is all of them

    # records
    eval_every: int = 10  # steps; also how often a checkpoint is written, if it takes no more than a second
    eval_batch: int = 150  # problems decoded at a time
    logged_completions: int = 4  # kept with their deposits at every evaluation

    def __post_init__(self):
        _check(self)

    @classmethod
    def load(cls, preset: str, **given: Any) -> "Cell":
        """The cell of `preset` with the `given` values: its place on the axes, and any other field.

        Raises `UserError` for an unknown preset, field or regime, for a value that cannot work and for one that neither
        the preset nor the caller gives.
        """
        table, known = read_preset(preset), {f.name for f in dataclasses.fields(cls)}

        def typed(values: dict[str, Any]) -> dict[str, Any]:
            for key in values:
                if key not in known:
                    raise UserError(f"unknown setting {key!r} for a cell of preset {preset!r}{nearest(key, known)}")
            return {key: _coerce(key, value) for key, value in values.items()}

        for axis, labels in labelled(preset).items():
            if (label := given.pop(axis, None)) is not None:
                if label not in list(labels):  # it may be a list itself, which has no hash
                    raise UserError(f"axis {axis} of preset {preset!r} has no {label!r}; it has {', '.join(labels)}")
                given = labels[label] | given
        asked = typed(given)
        values = typed({"preset": preset} | table.get("cell", {})) | asked
        for rule in table.get("override", []):
            if all(values.get(key) == value for key, value in typed(rule["match"]).items()):
                values |= typed(rule["set"]) | asked
        missing = {f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING} - values.keys()
        if missing:
            names = sorted(missing)
            raise UserError(f"preset {preset!r} gives no value for {', '.join(names)}; give {asked_for(preset, names)}")
        return cls(**values)

    def prompt(self, problem: str) -> str:
        """The text that a completion goes on from. Substituted, not formatted: LaTeX has braces."""
        return self.prompt_template.replace("{problem}", problem)

    @property
    def arm(self) -> str:
        """`r<rank>` or `full`."""
        return "full" if self.rank is None else f"r{self.rank}"

    @property
    def point(self) -> dict[str, Any]:
        """The cell's values, or labels, on its preset's axes beyond regime, rank and seed, in the preset's order."""
        named = labelled(self.preset) if self.preset in presets() else {}
        return {
            axis: self._label(axis, named[axis]) if axis in named else getattr(self, axis)
            for axis in further_axes(self.preset)
        }

    def _label(self, axis: str, labels: dict[str, dict[str, Any]]) -> str:
        """Of those whose fields have the cell's values the one with most; `UserError` where there is none."""
        fits = [label for label, s in labels.items() if all(getattr(self, k) == _coerce(k, v) for k, v in s.items())]
        if not fits:
            raise UserError(
                f"no label of axis {axis} of preset {self.preset!r} has this cell's values; give --set "
                f"{axis}={'|'.join(labels)}, or the preset another label"
            )
        return max(fits, key=lambda label: len(labels[label]))

    @property
    def name(self) -> str:
        """Directory name of the cell: `<regime>-<arm>-s<seed>`, with `<field>=<value>` of each further axis inside."""
        return "-".join([self.regime, self.arm, *(f"{k}={shown(v)}" for k, v in self.point.items()), f"s{self.seed}"])

    @property
    def config(self) -> dict[str, Any]:
        """What `config.json` holds; equal configurations compare equal after a round trip through JSON."""
        values = {key: getattr(self, key) for key in Cell.__dataclass_fields__}  # `asdict` copies each, slowly
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


class Setting(NamedTuple):
    """A field of `Cell`, in words."""

    key: str
    kind: str
    default: str  # as `--set` takes it
    what: str


def settings() -> list[Setting]:
    """Every setting of a cell, in the order of the fields; what it is stands behind the field in the source."""
    said = dict(re.findall(r"^    (\w+): .*  # (.+)$", inspect.getsource(Cell), re.MULTILINE))
    fields = [(f.name, f.default) for f in dataclasses.fields(Cell)]
    return [
        Setting(key, kind(key), "" if value is dataclasses.MISSING else json.dumps(value), said.get(key, ""))
        for key, value in fields
    ]


def kind(key: str) -> str:
    """What a setting takes, in plain words."""
    if key in CHOICES:
        return f"one of {', '.join(CHOICES[key])}"
    if key == "rank":
        return "a whole number, or full"
    return KINDS[_types()[key]]


def with_defaults(config: dict[str, Any]) -> dict[str, Any]:
    """A `config.json` as it would be written today: a setting that the library did not have yet was at its default."""
    later = [f for f in dataclasses.fields(Cell) if f.default is not dataclasses.MISSING and f.name not in config]
    return config | {f.name: list(f.default) if isinstance(f.default, tuple) else f.default for f in later}


def presets() -> list[str]:
    """Names of the presets there are."""
    names = os.listdir(PRESETS)  # a name of a cell asks for it: `glob` takes five times as long
    return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))


def read_preset(preset: str) -> dict[str, Any]:
    """The preset's TOML; where it has a `base`, what that one says is the ground on which it stands.

    Its axes replace those of the base as a whole, its values and rules come after them; `about` is its own. Raises
    `UserError` where there is no preset of that name or it cannot be read.
    """
    if preset not in presets():
        known = nearest(preset, presets()) or f"; there are {', '.join(presets())}"
        raise UserError(f"unknown preset {preset!r}{known}")
    try:
        table = dict(_parsed((PRESETS / f"{preset}.toml").read_text(encoding="utf-8")))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"lrd/presets/{preset}.toml is not valid TOML: {error}") from None
    if "base" not in table:
        return table
    below = read_preset(table["base"]) if table["base"] != preset else {"base": preset}
    if "base" in below:
        raise UserError(f"preset {preset!r}: its base {table['base']!r} has a base itself")
    below.pop("about", None)
    merged = {"cell": below.get("cell", {}) | table.get("cell", {})}
    return below | table | merged | {"override": below.get("override", []) + table.get("override", [])}


def further_axes(preset: str) -> list[str]:
    """The preset's axes beyond regime, rank and seed; none of a preset that there is not (a cell made by hand)."""
    axes = read_preset(preset).get("axes", {}) if preset in presets() else {}
    return [key for key in axes if key not in ("regime", "rank", "seed")]


def labelled(preset: str) -> dict[str, dict[str, dict[str, Any]]]:
    """The preset's axes over several fields: axis → label → the fields that it sets."""
    found = {axis: v for axis, v in read_preset(preset).get("axes", {}).items() if isinstance(v, dict)}
    for axis, labels in found.items():
        if axis in _types():
            raise UserError(f"axis {axis} of preset {preset!r} is a table and has the name of a setting; rename it")
        for label, settings in labels.items():
            check_name(label, f"label of axis {axis}")
            if not isinstance(settings, dict):
                raise UserError(f"{label} on axis {axis} of preset {preset!r} is {settings!r}; it has to be a table")
    return found


def asked_for(preset: str, keys: Iterable[str]) -> str:
    """How the command line gives these settings: `--rank 1|4 --set place=first|second`, values as on the axes."""
    axes, given = read_preset(preset).get("axes", {}), {}
    for key in keys:
        axis = next((axis for axis, labels in labelled(preset).items() if any(key in s for s in labels.values())), key)
        flag = f"--{axis} " if axis in ("regime", "rank", "seed") else f"--set {axis}="
        given[axis] = flag + "|".join(map(str, axes.get(axis) or CHOICES.get(axis) or ["…"]))
    return " ".join(given.values())


def shown(value: Any) -> str:
    """A field's value as a name holds it: safe in a path, the same on every machine."""
    text = ("+".join(map(str, value)) or "all") if isinstance(value, tuple) else str(value)
    return re.sub(r"[^\w.+-]", "_", text)


_parsed = functools.cache(tomllib.loads)  # a grid reads its preset for each cell


class CodebookName(NamedTuple):
    """What `codebook-<keys>x<bits>-<seed>` says; `lrd/data/codebook.py` makes it."""

    keys: int
    bits: int  # of each key's value
    seed: int


def codebook_name(source: str) -> CodebookName | None:
    """The parts of a codebook's name; None for the name of anything else."""
    parts = re.fullmatch(r"codebook-(\d+)x(\d+)-(\d+)", source)
    return CodebookName(*map(int, parts.groups())) if parts else None


def is_path(name: str) -> bool:
    """Whether a model or data set is given as a directory of the project or of the host."""
    return bool(re.match(r"\.{0,2}/", name))


def on_hub(name: str) -> bool:
    """Whether a model or data set is an id on the Hub: neither a path, nor a `.jsonl` file, nor made here."""
    return not (is_path(name) or name.endswith(".jsonl") or name in TASKS or codebook_name(name))


def revision(name: str) -> str:
    """The revision that is used of a repository on the Hub.

    Math-Shepherd's own branch has pickles alone; the one of the Hub's bot has the same weights as safetensors.
    """
    return "refs/pr/5" if name == "peiyi9979/math-shepherd-mistral-7b-prm" else "main"


def location(name: str, role: str) -> str:
    """Where `from_pretrained` finds a model: a directory of the project for `./path`, else the Hub id itself."""
    if not is_path(name):
        return name
    path = (ROOT / name).resolve()
    if not os.path.isfile(path / "config.json"):  # unlike Path's own, no error for a name that is too long
        hint = re.fullmatch(r"\./models/([\w-]+)/[\w-]+", name)
        known = hint and (PRESETS.parent / "testbed" / f"{hint[1]}.toml").is_file()
        make = f"; `lrd testbed {hint[1]}` makes the models of that preset" if hint and known else ""
        raise UserError(f"{role} {name!r} is not a directory with a Hugging Face checkpoint ({tried(path)}){make}")
    return str(ROOT / name)


def tried(path: Path) -> str:
    """Where a path of a setting was looked for: a shell elsewhere takes it for one of its own directory."""
    return f"tried {path}; paths count from {ROOT}"


def grid(preset: str, narrowed: dict[str, list[Any] | None] | None = None, **overrides: Any) -> list[Cell]:
    """All cells of a preset in a stable order, seeds slowest, so that a stopped matrix holds whole replicates.

    `narrowed` replaces an axis by some of its values, or by others (`{"rank": [2, 8]}`); None leaves it as it is. An
    override of an axis leaves that value of it. Of an axis over several fields, both leave the labels that fit.
    """
    axes, named = dict(read_preset(preset).get("axes", {})), labelled(preset)
    asked = {key: values for key, values in (narrowed or {}).items() if values is not None}
    asked |= {key: [value] for key, value in overrides.items()}
    for key, values in asked.items():
        owner = next((axis for axis, labels in named.items() if any(key in s for s in labels.values())), None)
        if owner:
            wanted = [_coerce(key, value) for value in values]
            labels = axes[owner].items()
            axes[owner] = {label: s for label, s in labels if key not in s or _coerce(key, s[key]) in wanted}
            if not axes[owner]:
                raise UserError(f"axis {owner} of preset {preset!r} has nothing with {key} = {values}")
        elif key in axes or key not in overrides:
            axes[key] = values
    for key, values in axes.items():
        if not isinstance(values, list | dict):
            raise UserError(f"axis {key} of preset {preset!r} is {values!r}; it has to be a list of values")
    names = sorted(reversed(axes), key=lambda name: name != "seed")
    points = itertools.product(*(axes[name] for name in names))
    cells = [Cell.load(preset, **overrides | dict(zip(names, point))) for point in points]
    cells = [cell for cell in cells if _in_windows(cell, read_preset(preset).get("window", []))]
    if len({cell.name for cell in cells}) < len(cells):
        raise UserError(f"preset {preset!r}: two cells share a name; each axis value has to be given once")
    return cells


def _in_windows(cell: Cell, windows: list[dict[str, dict[str, list[Any]]]]) -> bool:
    """Whether each `[[window]]` whose `match` holds the cell's values has them in its `only` too."""

    def holds(lists: dict[str, list[Any]]) -> bool:
        return all(getattr(cell, key) in [_coerce(key, value) for value in values] for key, values in lists.items())

    return all(holds(window["only"]) for window in windows if holds(window["match"]))


REGIMES = {
    "outcome": "lrd.rewards.outcome",
    "process": "lrd.rewards.process",
    "distillation": "lrd.rewards.distillation",
    "supervised": "lrd.rewards.supervised",
}
"""The registry of rewards: regime → the module whose `load` gives it."""

TASKS = ("chain", "arithmetic")
"""The tasks whose problems `problems.py` makes."""

CHOICES = {
    "regime": tuple(REGIMES),
    "dtype": ("float32", "bfloat16"),
    "master_dtype": ("float32", "bfloat16"),
    "grading": ("boxed", "bare"),
    "engine": ("torch", "vllm"),
    "kl_estimator": ("paper", "k1", "k2", "k3"),
    "loss_aggregation": ("token", "sequence", "constant"),
    "advantage_norm": ("group", "none"),
    "prm_reads": ("all", "canonical"),
    "deposit_rule": ("each", "difference", "minimum", "mean"),
    "to_go": ("sum", "mean"),
    "advantage_scale": ("as is", "whitened"),
}
AT_LEAST = {
    "seed": 0,
    "steps": 0,
    "samples_per_prompt": 1,
    "logged_completions": 0,
    "kl_coef": 0,
    "weight_decay": 0,
    "learning_rate": 0,
    "advantage_epsilon": 0,
    "advantage_cap": 0,
    "overlong_penalty": 0,
    "outcome_weight": 0,
    "validation_problems": 0,
    **dict.fromkeys(
        ("eval_problems", "prompts_per_step", "max_completion_tokens", "epochs", "eval_every", "eval_batch"), 1
    ),
}
POSITIVE = ("temperature", "top_p", "logp_temperature", "max_grad_norm", "clip_epsilon", "lora_alpha")


def check_name(name: str, what: str) -> str:
    """The name as it is where it can be that of a file, whatever is joined before it; else a `UserError`."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise UserError(f"{what} {name!r} is no name: it takes letters, digits, '.', '_' and '-', the first no sign")
    return name


def _check(cell: Cell) -> None:
    check_name(cell.preset, "preset")
    for key, allowed in CHOICES.items():
        value = getattr(cell, key)
        if value not in allowed:
            raise UserError(f"unknown {key} {_quoted(value)}{nearest(value, allowed)}; there are {', '.join(allowed)}")
    for key, least in AT_LEAST.items():
        if not least <= getattr(cell, key) < float("inf"):
            raise UserError(f"{key} is {getattr(cell, key)!r}; it has to be at least {least} and finite")
    for key in POSITIVE:
        if not 0 < getattr(cell, key) < float("inf"):
            raise UserError(f"{key} is {getattr(cell, key)!r}; it has to be positive and finite")
    if min(cell.lora_layers, default=0) < 0 or len(set(cell.lora_layers)) < len(cell.lora_layers):
        raise UserError(f"lora_layers is {list(cell.lora_layers)}; it takes each layer's number once, from 0")
    if len(set(cell.lora_targets)) < len(cell.lora_targets):
        raise UserError(f"lora_targets is {list(cell.lora_targets)}; it takes each name once")
    if cell.samples_per_prompt < 2 and cell.advantage_norm == "group":
        raise UserError(
            f"samples_per_prompt is {cell.samples_per_prompt}; it has to be at least 2, as a prompt's samples are "
            f"normalized against each other"
        )
    if cell.top_p > 1:
        raise UserError(f"top_p is {cell.top_p!r}; it is a probability, at most 1")
    if cell.rank is not None and cell.rank < 1:
        raise UserError(f"rank is {cell.rank!r}; it has to be 1 or more, or 'full' for full fine-tuning")
    if "{problem}" not in cell.prompt_template:
        raise UserError(f"prompt_template {cell.prompt_template!r} has no {{problem}} to be replaced")


def _rank(rank: Any) -> int | None:
    if rank is None or rank == "full":
        return None
    try:
        if isinstance(rank, bool) or int(rank) != float(rank):
            raise ValueError
        return int(rank)
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"rank is {rank!r}; it has to be 1 or more, or 'full' for full fine-tuning") from None


def _coerce(key: str, value: Any) -> Any:
    """The value in its field's type, or a `UserError` that names both."""
    if key == "rank":
        return _rank(value)
    wanted = _types()[key]
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if typing.get_origin(wanted) is tuple and isinstance(value, list | tuple):
        of = typing.get_args(wanted)[0]
        if all(type(v) is of for v in value) and (value or of is int):  # an adapter has targets; no layers means all
            return tuple(value)
    plain = wanted in (int, float, str) or isinstance(wanted, types.UnionType)
    if plain and isinstance(value, wanted) and not isinstance(value, bool):
        return value
    raise UserError(f"{key} is {_quoted(value)}; it has to be {kind(key)}")


def _quoted(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"


KINDS = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    tuple[str, ...]: "a list of texts, one at least",
    tuple[int, ...]: "a list of whole numbers",
}


@functools.cache
def _types() -> dict[str, Any]:
    return typing.get_type_hints(Cell)


def nearest(word: Any, known: Iterable[str]) -> str:
    """` (did you mean steps?)`, or nothing where no known name is like it."""
    near = difflib.get_close_matches(str(word), list(known), n=3)
    return f" (did you mean {' or '.join(near)}?)" if near else ""
