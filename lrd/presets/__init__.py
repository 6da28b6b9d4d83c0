"""Presets: experiments as data. No code asks for the name of one.

`lrd/presets/<name>.toml`, or `<runs>/<name>/preset.toml` of one's own (`lrd.runs.own`), holds

- `base`: the preset that this one extends (`read_preset`); `page`: the page of the book that reports it;
- `[about]`: the question, the prediction and the statistic that decides, as texts, and `expected`, the prediction as
  numbers; `resources`: what a cell takes of its host;
- `[axes]`: the matrix, a list of values for each of some fields of `Cell`. An axis over several fields at once is a
  table, `[axes.<name>]`, of labels and the fields that each sets;
- `[cell]`: the values that all cells share; `[regime.<name>]`: those of the cells of one reward; `[baseline]`: those of
  `lrd baseline`;
- `[rates]`: the learning rate of each arm, where nothing above gives one. An arm is a label, `r<rank>`, `full`, or
  `lora` for any other adapter; `[rates.<regime>]` is for one reward alone. `[windows]` has the same form: the learning
  rates of a sweep's axis that an arm tries.
"""

import functools
import os
import re
import tomllib
from pathlib import Path
from typing import Any

from lrd import UserError
from lrd.names import check_name, is_name, nearest, runs_root

FOLDER = Path(__file__).parent
DEFAULT = "tiny"  # the preset that anyone can run
KEYS = ("base", "page", "about", "resources", "axes", "cell", "regime", "baseline", "rates", "windows")


def preset_names() -> list[str]:
    """Names of the presets there are: the library's, and one's own of the runs that are read."""
    own = (path.parent.name for path in runs_root(os.environ.get("LRD_RUNS")).glob("*/preset.toml"))
    return sorted({*own, *(path.stem for path in FOLDER.glob("*.toml"))})


def file_of(preset: str) -> Path | None:
    """The preset's file; None where there is no preset of that name."""
    if not is_name(preset):
        return None
    own = runs_root(os.environ.get("LRD_RUNS")) / preset / "preset.toml"
    return next((path for path in (FOLDER / f"{preset}.toml", own) if path.is_file()), None)


def read_preset(preset: str) -> dict[str, Any]:
    """The preset's tables, completed by those of its `base`, which may have a base itself.

    What the preset says comes before what its base says, value by value in `[cell]`, else table by table. It keeps
    the axes of its base but for those over a field that it sets itself, in `[cell]` or on an axis, and may name the
    labels that it takes of one: `codebook = ["small", "large"]`. `[about]` is its own.

    Raises `UserError` where there is no preset of that name, it cannot be read or it holds what no preset does.
    """
    return dict(completed(*chain_of(preset)))


def chain_of(preset: str) -> tuple[tuple[str, str], ...]:
    """Name and text of the preset's file, and of those that it extends. Raises `UserError` as `read_preset` does."""
    chain: dict[str, str] = {}
    name: str | None = preset
    while name is not None:
        if (path := file_of(name)) is None:
            known = preset_names()
            raise UserError(f"unknown preset {name!r}{nearest(name, known) or '; there are ' + ', '.join(known)}")
        if name in chain:
            raise UserError(f"preset {preset!r} extends itself: {' → '.join([*chain, name])}")
        chain[name] = path.read_text(encoding="utf-8")
        name = parse(name, chain[name]).get("base")
    return tuple(chain.items())


def axes_of(preset: str) -> dict[str, Any]:
    """Axis → its values, or label → fields. None of a preset that there is not: that of a cell made by hand."""
    return read_preset(preset).get("axes", {}) if file_of(preset) else {}


def further_axes(preset: str) -> list[str]:
    """The preset's axes beyond regime, rank and seed."""
    return [axis for axis in axes_of(preset) if axis not in ("regime", "rank", "seed")]


def labelled(preset: str) -> dict[str, dict[str, dict[str, Any]]]:
    """The preset's axes over several fields: axis → label → the fields that it sets."""
    return over_several(read_preset(preset))


def over_several(tables: dict[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """As `labelled`, of a preset's tables."""
    return {axis: labels for axis, labels in tables.get("axes", {}).items() if isinstance(labels, dict)}


def axis_over(tables: dict[str, Any], key: str) -> str | None:
    """The axis over several fields that sets this one."""
    return next((axis for axis, labels in over_several(tables).items() if key in _fields(axis, labels)), None)


@functools.cache  # a grid reads its preset for each cell
def parse(preset: str, text: str) -> dict[str, Any]:
    """The tables of one file, without those of its base. Raises `UserError` where it is no preset."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"preset {preset!r} is not valid TOML: {error}") from None
    for key in tables:
        if key not in KEYS:
            raise UserError(f"unknown key {key!r} in preset {preset!r}{nearest(key, KEYS)}")
    for axis, labels in tables.get("axes", {}).items():
        for label, fields in labels.items() if isinstance(labels, dict) else ():
            check_name(label, f"label of axis {axis}")
            if not isinstance(fields, dict):
                raise UserError(f"{label} on axis {axis} of preset {preset!r} is {fields!r}; it has to be a table")
    return tables


@functools.cache
def completed(*chain: tuple[str, str]) -> dict[str, Any]:
    """The tables of the first of these (preset, text), which extends the second, which extends the third."""
    (preset, text), *bases = chain
    own, base = parse(preset, text), completed(*bases) if bases else {}
    merged = {key: value for key, value in base.items() if key != "about"} | own
    merged["cell"] = base.get("cell", {}) | own.get("cell", {})
    merged["axes"] = _completed_axes(preset, own, base.get("axes", {}))
    arms = {"lora", "full"}.union(*over_several(merged).values())
    for table in ("rates", "windows"):
        rows = own.get(table, {})
        for arm in (arm for key, row in rows.items() for arm in (row if isinstance(row, dict) else [key])):
            if arm not in arms and not re.fullmatch(r"r[1-9]\d*", arm):
                raise UserError(f"{table} of preset {preset!r} has {arm!r}, which is no arm{nearest(arm, arms)}")
    return merged


def _completed_axes(preset: str, own: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    """The preset's new axes, then those that it has from its base."""
    axes = dict(own.get("axes", {}))
    for axis, labels in axes.items():
        if isinstance(labels, list) and isinstance(known := base.get(axis), dict):
            for label in labels:
                if label not in known:
                    raise UserError(f"axis {axis} of preset {preset!r} has no {label!r}; it has {', '.join(known)}")
            axes[axis] = {label: known[label] for label in labels}
    decided = set(own.get("cell", {})).union(*(_fields(axis, values) for axis, values in axes.items()))
    kept = {axis: values for axis, values in base.items() if axis in axes or not decided & _fields(axis, values)}
    return {axis: values for axis, values in axes.items() if axis not in kept} | kept | axes


def _fields(axis: str, values: Any) -> set[str]:
    """The fields that an axis varies."""
    return set().union(*values.values()) if isinstance(values, dict) else {axis}
