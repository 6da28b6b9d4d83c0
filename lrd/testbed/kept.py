"""Adapters that the repository keeps, `adapters/<testbed>/[<training>/]<role>`, so that nobody trains them again.

They are copies of what `lrd testbed` left in `models/<testbed>/adapters/`. Beside each lies its card: what the model
measured, and under `made_from` the part of the recipe that decided it.
"""

from pathlib import Path
from typing import Any

from lrd import ROOT
from lrd.runs.files import read_json, write_json

FOLDER = ROOT / "adapters"


def made_from(world: dict[str, Any], role: str) -> dict[str, Any]:
    """The part of a recipe that decides a role's adapter: its section, and those of the models that it builds on."""
    takes = [world[role].get("from"), world[role].get("completer"), "student" if role == "prm" else None]
    decides = {key: world[key] for key in ("task", "start", "seed") if key in world} | {role: world[role]}
    for other in filter(None, takes):
        decides |= made_from(world, other)
    return decides


def card(world: dict[str, Any], role: str) -> dict[str, Any] | None:
    """The measurements of the adapter in `world["kept"]`; None without one, or if its recipe has changed since."""
    there = read_json(world["kept"] / role / "card.json") if "kept" in world else None
    return there["measured"] if there and there["made_from"] == made_from(world, role) else None


def tell(world: dict[str, Any], role: str, folder: Path, measured: dict[str, Any]) -> None:
    """Writes the card of a role's adapter beside it, in `folder`."""
    write_json(folder / "card.json", {"made_from": made_from(world, role), "measured": measured})
