"""Where an adapter sits: PEFT's `target_modules` and `layers_to_transform`, checked against a model.

With few targets in few layers an adapter has fewer parameters than rank 1 everywhere: so they sweep from a hundred on.
"""

import contextlib
import re
from collections.abc import Sequence
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers.pytorch_utils import Conv1D

from lrd import UserError
from lrd.cell import Cell
from lrd.models.loading import CausalLM, skeleton


def linear_layers(model: CausalLM) -> dict[str, Any]:
    """The linear maps of a model's decoder layers by their full names.

    Not the head: learner and rewards multiply by its weight and would not see an adapter on it (`models._Scorer`).
    """
    inside = set(model.get_decoder().modules())
    named = {name: m for name, m in model.named_modules() if m in inside and _layer(name) is not None}
    linear = {name: m for name, m in named.items() if isinstance(m, nn.Linear | Conv1D)}
    return {name: m for name, m in linear.items() if "Router" not in type(m).__name__}  # it gives more than a product


def adapted(model: CausalLM, targets: Sequence[str], layers: Sequence[int] = ()) -> dict[str, Any]:
    """The linear maps that an adapter sits on: those called `targets`, of all decoder layers or of the given ones."""
    named = {name: m for name, m in linear_layers(model).items() if name.rsplit(".", 1)[-1] in targets}
    return {name: m for name, m in named.items() if not layers or _layer(name) in layers}


def check(cell: Cell) -> None:
    """Raises `UserError` for a target or a layer that the cell's student does not have; reads no weights."""
    if cell.rank is not None:
        model = skeleton(cell.student, "student")
        with torch.device("meta"):
            add(model, cell, cell.rank)


def add(model: CausalLM, cell: Cell, rank: int) -> CausalLM:
    """The model with a fresh adapter of the cell's. Raises `UserError` where it has no place for it."""
    there = linear_layers(model)
    known = {name.rsplit(".", 1)[-1] for name in there}
    if absent := set(cell.lora_targets) - known:
        raise UserError(
            f"lora_targets names {', '.join(sorted(absent))}, which student {cell.student!r} does not have in its "
            f"decoder layers; the linear ones there are {', '.join(sorted(known))}"
        )
    numbers = {number for name in there if (number := _layer(name)) is not None}
    if beyond := set(cell.lora_layers) - numbers:
        raise UserError(
            f"lora_layers names {', '.join(map(str, sorted(beyond)))}, which student {cell.student!r} does not have; "
            f"its layers are {min(numbers)} to {max(numbers)}"
        )
    config = LoraConfig(
        r=rank,
        lora_alpha=cell.lora_alpha,  # pyright: ignore[reportArgumentType] (a float does as well)
        target_modules=list(cell.lora_targets),
        layers_to_transform=list(cell.lora_layers) or None,
        task_type="CAUSAL_LM",
    )
    wanted = set(adapted(model, cell.lora_targets, cell.lora_layers))
    with contextlib.suppress(ValueError):
        made = get_peft_model(model, config)  # adapters in fp32 whatever the base's dtype
        if wanted == {name for name, m in model.named_modules() if isinstance(m, LoraLayer)}:
            return made
    raise UserError(
        f"PEFT cannot place adapters on the linear layers {', '.join(cell.lora_targets)} of student {cell.student!r} "
        f"alone: it has other modules of these names, such as fused experts, or other layers of these numbers"
    )


def _layer(name: str) -> int | None:
    """Number of the decoder layer in a module's name; None of what stands outside of them."""
    found = re.search(r"\.(\d+)\.", name)
    return int(found[1]) if found else None
