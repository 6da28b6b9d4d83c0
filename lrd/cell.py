"""One cell of the study: every hyperparameter, resolved from a preset before anything runs; and a preset's cells."""

import dataclasses
import functools
import inspect
import itertools
import json
import re
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lrd import UserError, sources
from lrd.names import check_name, codebook_name, import_path, nearest, reward_terms
from lrd.presets import axes_of, axis_over, chain_of, over_several, read_preset

CHAT = "chat"  # a prompt template: the tokenizer's own
LLAMA_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class Table(dict):
    """A table that nothing changes once it is made, so that what has one can be hashed."""

    def __hash__(self):
        return hash(json.dumps(self, sort_keys=True))


NOTHING = Table()


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A fully resolved cell; defaults are the original's.

    Units: tokens, problems, and steps (one rollout and its updates each).
    What stands behind a field is what `settings` shows.
    """

    preset: str  # a file in lrd/presets/, without its .toml
    regime: str  # the reward: a registered one, module:function of one's own, or a sum, outcome+0.5*module:function
    rank: int | None  # the LoRA adapter's; "full" is full fine-tuning, None in Python
    seed: int  # decides prompts, samples and the adapter's first weights

    # models
    student: str  # the model that is trained: a ./directory of the project, or an id on the Hugging Face Hub
    teacher: str  # the model that distillation learns from
    prm: str  # the process reward model, which scores steps
    dtype: str = "float32"  # precision of forward passes and frozen weights; trained weights have `master_dtype`
    master_dtype: str = "float32"  # precision of trained weights; the original's full fine-tuning has "bfloat16"

    # problems
    train_data: str  # "chain", "arithmetic", codebook-<keys>x<bits>-<seed>, reasoning-gym/…, a .jsonl file, a Hub id
    eval_data: str  # the same for evaluations, or a table of several held-out sets, the first of which decides
    eval_problems: int = 100  # problems of the test split that are asked
    validation_problems: int = 0  # problems of a split apart from it, to choose rates and steps by; 0 is none
    prompt_template: str = "Problem: {problem}\n\nSolution: "  # with {problem} in it; "chat" is the tokenizer's own
    system_prompt: str = ""  # of prompt_template "chat": the system message; "" leaves what the tokenizer has for it
    eval_reward: str = ""  # a reward, named as a regime, that scores evaluations too, beside the verifier; "" is none
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
    learning_rate: float  # AdamW's, at its largest
    warmup_steps: int = 0  # steps over which the learning rate rises from 0, in a line
    lr_schedule: str = "constant"  # the learning rate after that; the others fall to 0 behind the last step
    weight_decay: float = 0.0  # AdamW's
    micro_batch: int = 0  # completions that the learner reads at a time and again for the gradient; 0: all, once
    checkpointing: str = "none"  # "layers": each keeps its input alone and runs again for the gradient
    max_grad_norm: float = 1.0  # a larger gradient is scaled down to it
    clip_epsilon: float = 0.2  # how far the ratio of an update may leave 1
    clip_epsilon_high: float = 0.0  # how far above 1 (clip-higher, DAPO); 0: as far as below
    ratio_level: str = "token"  # whose ratio is clipped: each token's, or its whole sequence's (GSPO)
    kl_coef: float = 0.05  # weight of the KL penalty to the base model; 0 is none
    kl_estimator: str = "paper"  # how the penalty is estimated
    loss_aggregation: str = "token"  # what the loss is a mean over; "constant" divides by the longest length
    advantage_epsilon: float = 1e-8  # added to the std that deposits are divided by
    advantage_norm: str = "group"  # within a prompt's samples; "mean": without the std (Dr. GRPO); "none": neither
    truncated_completions: str = "kept"  # those cut at the longest length; "masked": left out of the loss (DAPO)
    importance_cap: float = 0.0  # largest weight of a token for π_learner / π_sampler; 0: tokens are not weighted
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
    lora: Table = NOTHING  # PEFT's own words: use_rslora, use_dora, init_lora_weights

    # records
    eval_every: int = 10  # steps; also how often a checkpoint is written, if it takes no more than a second
    eval_batch: int = 150  # problems decoded at a time
    logged_completions: int = 4  # kept with their deposits at every evaluation

    def __post_init__(self):
        _check(self)

    @classmethod
    def load(cls, preset: str, **given: Any) -> "Cell":
        """The cell of `preset` with the `given` values: its place on the axes, and any other field.

        On an axis of one value that value need not be given.

        Raises `UserError` for an unknown preset, field or regime, for a value that cannot work and for one that neither
        the preset nor the caller gives.
        """
        return cls(**_resolved(preset, read_preset(preset), given))

    @property
    def rewards(self) -> list[str]:
        """The regime, and the reward that scores evaluations where there is one."""
        return [self.regime, self.eval_reward] if self.eval_reward else [self.regime]

    @property
    def arm(self) -> str:
        """`r<rank>` or `full`."""
        return "full" if self.rank is None else f"r{self.rank}"

    @property
    def point(self) -> dict[str, Any]:
        """The cell's values, or labels, on its preset's axes beyond regime, rank and seed, in the preset's order.

        Raises `UserError` where no label of an axis has this cell's values.
        """
        point = {}
        for axis, values in axes_of(self.preset).items():
            if axis not in ("regime", "rank", "seed"):
                point[axis] = _fitting(values, vars(self))[:1] if isinstance(values, dict) else [getattr(self, axis)]
                if not point[axis]:
                    raise UserError(
                        f"no label of axis {axis} of preset {self.preset!r} has this cell's values; give --set "
                        f"{axis}={'|'.join(values)}, or the preset another label"
                    )
        return {axis: first for axis, [first] in point.items()}

    @functools.cached_property  # pages ask for each of hundreds, again and again
    def name(self) -> str:
        """Directory name of the cell: `<regime>-<arm>-s<seed>`, with `<field>=<value>` of each further axis inside.

        A reward of one's own, `module:function`, is `module.function` there, and `0.5*outcome` is `0.5_outcome`.
        """
        regime = path_safe(self.regime.replace(":", "."))
        further = [f"{k}={path_safe(v)}" for k, v in self.point.items()]
        return "-".join([regime, self.arm, *further, f"s{self.seed}"])

    @property
    def config(self) -> dict[str, Any]:
        """What `config.json` holds; equal configurations compare equal after a round trip through JSON."""
        values = {key: getattr(self, key) for key in Cell.__dataclass_fields__}  # `asdict` copies each, slowly
        values |= {key: sources.as_config(values[key]) for key in sources.KINDS}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


_TYPES = typing.get_type_hints(Cell)
_DEFAULTS = {f.name: f.default for f in dataclasses.fields(Cell) if f.default is not dataclasses.MISSING}


def settings() -> list[tuple[str, str, str, str]]:
    """Name, kind, default (as `--set` takes it) and meaning of every setting of a cell, in the order of the fields.

    What a setting means stands behind its field in the source.
    """
    meaning = dict(re.findall(r"^    (\w+): .*  # (.+)$", inspect.getsource(Cell), re.MULTILINE))
    default = {key: json.dumps(value) for key, value in _DEFAULTS.items()}
    return [(key, kind(key), default.get(key, ""), meaning.get(key, "")) for key in _TYPES]


def kind(key: str) -> str:
    """What a setting takes, in plain words."""
    if key in CHOICES:
        return f"one of {', '.join(CHOICES[key])}{OWN if key == 'regime' else ''}"
    return "a whole number, or full" if key == "rank" else sources.KINDS.get(key) or KINDS[_TYPES[key]]


def with_defaults(config: dict[str, Any]) -> dict[str, Any]:
    """A `config.json` as it would be written today: a setting that the library did not have yet was at its default."""
    return {key: list(v) if isinstance(v, tuple) else v for key, v in _DEFAULTS.items()} | config


def _fitting(labels: dict[str, dict[str, Any]], values: dict[str, Any]) -> list[str]:
    """The labels whose fields have these values, those of most fields first."""

    def fits(label: str) -> bool:
        return all(key in values and values[key] == _coerce(key, value) for key, value in labels[label].items())

    return sorted(filter(fits, labels), key=lambda label: -len(labels[label]))


def _resolved(preset: str, tables: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The values of the cell at a place on the axes of a preset. Raises `UserError` as `Cell.load` does."""
    _check_tables(preset, tables)
    for axis, labels in over_several(tables).items():
        if (label := given.pop(axis, None)) is not None:
            if label not in list(labels):  # it may be a list itself, which has no hash
                raise UserError(f"axis {axis} of preset {preset!r} has no {label!r}; it has {', '.join(labels)}")
            given = labels[label] | given
    asked = _typed(preset, given)
    alone = {axis: row[0] for axis, row in tables.get("axes", {}).items() if isinstance(row, list) and len(row) == 1}
    values = {"preset": preset} | _typed(preset, alone | tables.get("cell", {})) | asked
    values |= _typed(preset, tables.get("regime", {}).get(values.get("regime"), {})) | asked
    if book := codebook_name(values.get("train_data", "")):  # all of it is asked, of the teacher that knows it
        values = {"eval_data": values["train_data"], "eval_problems": book.keys} | values
        values |= {"teacher": values["teacher"].replace("{book}", str(book.seed))} if "teacher" in values else {}
    if "learning_rate" not in values and (rate := _of_arm(tables, "rates", values)) is not None:
        values |= _typed(preset, {"learning_rate": rate})
    if missing := sorted(_TYPES.keys() - _DEFAULTS.keys() - values.keys()):
        raise UserError(
            f"preset {preset!r} gives no value for {', '.join(missing)}; give {options_for(preset, missing)}"
        )
    return values


def _of_arm(tables: dict[str, Any], table: str, values: dict[str, Any]) -> Any:
    """What `[rates]` or `[windows]` has for a cell: for a label of its, its rank, or any adapter; None for nothing."""
    rows, rank = tables.get(table, {}), values.get("rank")
    row = rows | rows.get(values.get("regime"), {})
    labels = [label for axis in over_several(tables).values() for label in _fitting(axis, _DEFAULTS | values)]
    arms = ["full"] if rank is None else [f"r{rank}", "lora"]
    return next((row[name] for name in [*labels, *arms] if name in row), None)


def options_for(preset: str, keys: Iterable[str]) -> str:
    """How the command line gives these settings: `--rank 1|4 --set place=first|second`, values as on the axes."""
    given = {}
    for key in keys:
        axis = axis_over(read_preset(preset), key) or key
        flag = f"--{axis} " if axis in ("regime", "rank", "seed") else f"--set {axis}="
        given[axis] = flag + "|".join(map(str, axes_of(preset).get(axis) or CHOICES.get(axis) or ["…"]))
    return " ".join(given.values())


def path_safe(value: Any) -> str:
    """A field's value as a name holds it: safe in a path, the same on every machine."""
    value = tuple(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else value
    text = ("+".join(map(str, value)) or "all") if isinstance(value, tuple) else str(value)
    return re.sub(r"[^\w.+-]", "_", text)


def grid(preset: str, narrowed: dict[str, list[Any] | None] | None = None, **overrides: Any) -> list[Cell]:
    """All cells of a preset in a stable order, seeds slowest, so that a stopped matrix holds whole replicates.

    `narrowed` replaces an axis by some of its values, or by others (`{"rank": [2, 8]}`); None leaves it as it is. An
    override of an axis leaves that value of it. Of an axis over several fields, both leave the labels that fit.
    """
    return [*_whole(chain_of(preset))] if not narrowed and not overrides else _grid(preset, narrowed or {}, overrides)


@functools.cache
def _whole(chain: tuple[tuple[str, str], ...]) -> list[Cell]:
    """All cells of a preset whose files hold these texts."""
    return _grid(chain[0][0], {}, {})


def _grid(preset: str, narrowed: dict[str, list[Any] | None], overrides: dict[str, Any]) -> list[Cell]:
    tables = read_preset(preset)
    axes = dict(tables.get("axes", {}))
    asked = {key: values for key, values in narrowed.items() if values is not None}
    asked |= {key: [value] for key, value in overrides.items()}
    for key, values in asked.items():
        if axis := axis_over(tables, key):
            wanted = [_coerce(key, value) for value in values]
            labels = axes[axis].items()
            axes[axis] = {label: s for label, s in labels if key not in s or _coerce(key, s[key]) in wanted}
            if not axes[axis]:
                raise UserError(f"axis {axis} of preset {preset!r} has nothing with {key} = {values}")
        elif key in axes or key not in overrides:
            axes[key] = values
    for key, values in axes.items():
        if not isinstance(values, list | dict):
            raise UserError(f"axis {key} of preset {preset!r} is {values!r}; it has to be a list of values")
    fast = {"seed": -1, "rank": 1, "regime": 2}
    names = sorted(reversed(axes), key=lambda axis: fast.get(axis, 0))
    points = itertools.product(*(axes[name] for name in names))
    cells = [Cell(**_resolved(preset, tables, overrides | dict(zip(names, point)))) for point in points]
    windows = [_of_arm(tables, "windows", vars(cell)) or [cell.learning_rate] for cell in cells]
    cells = [cell for cell, window in zip(cells, windows) if cell.learning_rate in window]
    if len({cell.name for cell in cells}) < len(cells):
        raise UserError(f"preset {preset!r}: two cells share a name; each axis value has to be given once")
    return cells


REGIMES = {
    "outcome": "lrd.rewards.outcome",
    "process": "lrd.rewards.process",
    "distillation": "lrd.rewards.distillation",
    "supervised": "lrd.rewards.supervised",
}
"""The registry of rewards: regime → the module whose `load` gives it."""
OWN = ", module:function of your own, or a sum such as outcome+0.5*module:function"  # beside those of the registry


def known_regime(regime: str) -> bool:
    """Whether a regime is registered, has the form of a reward of one's own, or sums such."""
    terms = reward_terms(regime)
    return bool(terms) and all(name in REGIMES or import_path(name) is not None for _, name in terms)


def reward_module(regime: str) -> str:
    """The module whose `load` gives the regime's reward."""
    summed = [name for _, name in reward_terms(regime)] != [regime]
    return "lrd.rewards.summed" if summed else REGIMES.get(regime, "lrd.rewards.imported")


CHOICES = {
    "regime": tuple(REGIMES),
    "dtype": ("float32", "bfloat16"),
    "master_dtype": ("float32", "bfloat16"),
    "grading": ("boxed", "bare"),
    "engine": ("torch", "vllm"),
    "kl_estimator": ("paper", "k1", "k2", "k3"),
    "loss_aggregation": ("token", "sequence", "constant"),
    "lr_schedule": ("constant", "linear", "cosine"),
    "checkpointing": ("none", "layers"),
    "ratio_level": ("token", "sequence"),
    "truncated_completions": ("kept", "masked"),
    "advantage_norm": ("group", "mean", "none"),
    "prm_reads": ("all", "canonical"),
    "deposit_rule": ("each", "difference", "minimum", "mean"),
    "to_go": ("sum", "mean"),
    "advantage_scale": ("as is", "whitened"),
}
KINDS = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    tuple[str, ...]: "a list of texts, one at least",
    tuple[int, ...]: "a list of whole numbers",
    Table: "a table",
}

AT_LEAST = dict.fromkeys(("samples_per_prompt", "eval_problems", "prompts_per_step", "max_completion_tokens"), 1)
AT_LEAST |= dict.fromkeys(("epochs", "eval_every", "eval_batch"), 1)
AT_LEAST |= dict.fromkeys(("seed", "steps", "logged_completions", "validation_problems", "kl_coef", "weight_decay"), 0)
AT_LEAST |= dict.fromkeys(("learning_rate", "advantage_epsilon", "advantage_cap", "overlong_penalty"), 0)
AT_LEAST |= dict.fromkeys(("outcome_weight", "warmup_steps", "clip_epsilon_high", "importance_cap", "micro_batch"), 0)
POSITIVE = ("temperature", "top_p", "logp_temperature", "max_grad_norm", "clip_epsilon", "lora_alpha")
RANKS = "it has to be 1 or more, or 'full' for full fine-tuning"


def _check(cell: Cell) -> None:
    check_name(cell.preset, "preset")
    rewards = {"eval_reward": CHOICES["regime"]} if cell.eval_reward else {}
    for key, allowed in (CHOICES | rewards).items():
        value, is_reward = getattr(cell, key), allowed is CHOICES["regime"]
        if value not in allowed and not (is_reward and known_regime(value)):
            there, own = ", ".join(allowed), OWN if is_reward else ""
            raise UserError(f"unknown {key} {_quoted(value)}{nearest(value, allowed)}; there are {there}{own}")
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
    if cell.samples_per_prompt < 2 and cell.advantage_norm != "none":
        raise UserError(
            f"samples_per_prompt is {cell.samples_per_prompt}; it has to be at least 2, as a prompt's samples are "
            f"normalized against each other"
        )
    if cell.warmup_steps > cell.steps:
        raise UserError(f"warmup_steps is {cell.warmup_steps}; the run has {cell.steps} steps")
    if cell.importance_cap and cell.logp_temperature != 1:
        raise UserError(
            f"importance_cap is {cell.importance_cap!r} and logp_temperature {cell.logp_temperature!r}; it has to be "
            f"1, the temperature of the sampler's log-probabilities"
        )
    if cell.top_p > 1:
        raise UserError(f"top_p is {cell.top_p!r}; it is a probability, at most 1")
    if cell.rank is not None and cell.rank < 1:
        raise UserError(f"rank is {cell.rank!r}; {RANKS}")
    if "{problem}" not in cell.prompt_template and cell.prompt_template != CHAT:
        raise UserError(
            f"prompt_template {cell.prompt_template!r} has no {{problem}} to be replaced, "
            f"and {CHAT!r} alone is the tokenizer's own"
        )
    if cell.system_prompt and cell.prompt_template != CHAT:
        raise UserError(f"system_prompt is for prompt_template {CHAT!r}; write it into your own template")


def _check_tables(preset: str, tables: dict[str, Any]) -> None:
    """That a preset's axes over several fields have names of their own, and that its regimes are some."""
    for axis in over_several(tables).keys() & _TYPES.keys():
        raise UserError(f"axis {axis} of preset {preset!r} is a table and has the name of a setting; rename it")
    for rows in (tables.get(key, {}) for key in ("regime", "rates", "windows")):
        for regime in (key for key, row in rows.items() if isinstance(row, dict) and not known_regime(key)):
            raise UserError(f"preset {preset!r} has values for an unknown regime {regime!r}{nearest(regime, REGIMES)}")


def _typed(preset: str, values: dict[str, Any]) -> dict[str, Any]:
    """Settings of a cell in their fields' types. Raises `UserError` for an unknown one and a value of another type."""
    for key in values:
        if key not in _TYPES:
            raise UserError(f"unknown setting {key!r} for a cell of preset {preset!r}{nearest(key, _TYPES)}")
    return {key: _coerce(key, value) for key, value in values.items()}


def _coerce(key: str, value: Any) -> Any:
    """The value in its field's type, or a `UserError` that names both."""
    wanted = _TYPES[key]
    if key in sources.KINDS and isinstance(value, str | list | dict):
        return sources.as_text(key, value)
    if key == "rank":
        if value is None or value == "full":
            return None
        if not re.fullmatch("-?[0-9]{1,9}", str(value)):
            raise UserError(f"rank is {_quoted(value)}; {RANKS}")
        return int(value)
    if wanted is float and type(value) is int:
        return float(value)
    if typing.get_origin(wanted) is tuple:
        item = typing.get_args(wanted)[0]
        fits = isinstance(value, list | tuple) and all(type(v) is item for v in value)
        fits = fits and (value or item is int)  # an adapter has targets; no layers means all
    elif wanted is Table:
        fits, value = isinstance(value, dict), Table(value) if isinstance(value, dict) else value
    else:
        fits = isinstance(value, wanted) and not isinstance(value, bool)
    if not fits:
        raise UserError(f"{key} is {_quoted(value)}; it has to be {kind(key)}")
    return tuple(value) if isinstance(value, list) else value


def _quoted(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"
