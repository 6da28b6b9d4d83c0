"""What an adapter is and where it sits, in PEFT's words, checked against a model.

With few targets in few layers an adapter has fewer parameters than rank 1 everywhere: so they sweep from a hundred on.
"""

import json
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
from lrd.names import nearest


def linear_layers(model: CausalLM) -> dict[str, Any]:
    """The linear maps of a model's decoder layers by their full names.

    Not the head: learner and rewards multiply by its weight and would not see an adapter on it (`logps._Scorer`).
    """
    inside = set(model.get_decoder().modules())
    linear = {name: m for name, m in model.named_modules() if m in inside and isinstance(m, nn.Linear | Conv1D)}
    routers = {name for name, m in linear.items() if "Router" in type(m).__name__}  # they give more than a product
    return {name: m for name, m in linear.items() if name not in routers and _layer(name) is not None}


def adapted(model: CausalLM, targets: Sequence[str], layers: Sequence[int] = ()) -> dict[str, Any]:
    """The linear maps that an adapter sits on: those called `targets`, of all decoder layers or of the given ones."""
    named = {name: m for name, m in linear_layers(model).items() if name.rsplit(".", 1)[-1] in targets}
    return {name: m for name, m in named.items() if not layers or _layer(name) in layers}


OWN = {"r": "rank", "lora_alpha": "lora_alpha", "target_modules": "lora_targets", "layers_to_transform": "lora_layers"}
WORDS = ("use_rslora", "use_dora", "init_lora_weights")
STARTS = (True, False, "gaussian", "orthogonal", "pissa", "olora")  # of `init_lora_weights`
TAKEN_OUT = ("pissa", "olora")  # what the adapter starts with is subtracted from the frozen weights


def moves_base(cell: Cell) -> bool:
    """Whether the frozen weights under the cell's adapter are others than the student's, which is no reference then."""
    return cell.rank is not None and cell.lora.get("init_lora_weights") in TAKEN_OUT


def check_words(cell: Cell) -> None:
    """Raises `UserError` for a word of `lora` with which sampler and learner are not shown to have the same weights."""
    for word, value in cell.lora.items():
        if word in OWN:
            raise UserError(f"lora sets {word}, which has a setting of its own: {OWN[word]}")
        if word not in WORDS:
            raise UserError(
                f"lora sets {word!r}{nearest(word, WORDS)}; sampler and learner are shown to agree with "
                f"{', '.join(WORDS)} alone"
            )
        values = STARTS if word == "init_lora_weights" else STARTS[:2]
        if not any(type(value) is type(v) and value == v for v in values):
            raise UserError(
                f"{word} of lora is {value!r}; sampler and learner are shown to agree with "
                f"{', '.join(map(json.dumps, values))} alone"
            )


def check(cell: Cell) -> None:
    """Raises `UserError` for a word, a target or a layer that there is not for the cell's student; reads no weights."""
    if cell.rank is not None:
        model = skeleton(cell.student, "student")
        with torch.device("meta"):
            add(model, cell, cell.rank)


def add(model: CausalLM, cell: Cell, rank: int) -> CausalLM:
    """The model with a fresh adapter of the cell's. Raises `UserError` where PEFT cannot make it."""
    check_words(cell)
    linear = linear_layers(model)
    known = {name.rsplit(".", 1)[-1] for name in linear}
    if absent := set(cell.lora_targets) - known:
        raise UserError(
            f"lora_targets names {', '.join(sorted(absent))}, which student {cell.student!r} does not have in its "
            f"decoder layers; the linear ones there are {', '.join(sorted(known))}"
        )
    numbers = {number for name in linear if (number := _layer(name)) is not None}
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
        **cell.lora,
    )
    places, said = adapted(model, cell.lora_targets, cell.lora_layers), ""
    transposed = any(isinstance(m, Conv1D) for m in places.values())
    if transposed and cell.lora.get("init_lora_weights") == "olora":
        raise UserError(
            f"init_lora_weights of lora is 'olora', which PEFT does not make for transposed weights (Conv1D) as "
            f"those of student {cell.student!r}"
        )
    try:
        with_adapter = get_peft_model(model, config)  # adapters in fp32 whatever the base's dtype
        if set(places) == {name for name, m in model.named_modules() if isinstance(m, LoraLayer)}:
            return with_adapter
    except ValueError as error:
        said = " ".join(str(error).split())
    if cell.lora and said:
        raise UserError(f"PEFT refuses rank {rank} with lora = {dict(cell.lora)}: {said}")
    raise UserError(
        f"PEFT cannot place adapters on the linear layers {', '.join(cell.lora_targets)} of student {cell.student!r} "
        f"alone: it has other modules of these names, such as fused experts, or other layers of these numbers"
    )


def _layer(name: str) -> int | None:
    """Number of the decoder layer in a module's name; None for a module outside of them."""
    number = re.search(r"\.(\d+)\.", name)
    return int(number[1]) if number else None
