"""Recipes of testbeds, `lrd/testbed/<name>.toml`: which models there are, their shapes, training and habits."""

import hashlib
import json
import tomllib
from pathlib import Path
from typing import Any

from lrd import UserError
from lrd.names import check_name
from lrd.runs import sources

HERE = Path(__file__).parent
DECISIVE = ("lrd/testbed/", "lrd/data/", "lrd/models/", "lrd/rewards/", "lrd/sampling/")  # for the weights


def load(name: str) -> dict[str, Any]:
    """A testbed's recipe; `base` names another one that it changes. Raises `UserError` where there is none."""
    path = HERE / f"{check_name(name, 'preset')}.toml"
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in HERE.glob("*.toml")))
        raise UserError(f"there is no testbed recipe {name!r}; there are {there}")
    recipe = tomllib.loads(path.read_text(encoding="utf-8"))
    return load(recipe.pop("base")) | recipe if "base" in recipe else recipe


def digest(name: str, torch_version: str) -> str:
    """Changes with the recipe, with PyTorch, and with every source file that decides what the recipe makes."""
    files = sources.imported(["lrd.testbed.build"]).items()
    decisive = {path: content for path, content in files if path.startswith(DECISIVE)}
    text = f"{torch_version} {json.dumps(load(name))} {json.dumps(decisive, sort_keys=True)}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def worlds(recipe: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The recipe with a single seed, by the directory that its models go to."""
    if "trainings" not in recipe:
        return {"": recipe}
    return {f"{seed}/": recipe | {"seed": seed} for seed in recipe["trainings"]}


def cost(section: dict[str, Any]) -> int:
    """What a section's training costs, up to a factor that is the same for all models of a recipe."""
    train, shape = section["train"], section.get("shape")
    size = shape["num_hidden_layers"] * shape["hidden_size"] ** 2 if shape else 1
    return train["steps"] * train["batch"] * size
