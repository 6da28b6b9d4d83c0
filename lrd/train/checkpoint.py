"""Resume state of a cell in one safetensors file: trainable weights, optimizer, position. No pickle.

All randomness of a cell is a function of (seed, step), so the position stands for every generator's state.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from lrd import UserError
from lrd.runs.files import replace


def save(path: Path, step: int, config: dict, trainable: Mapping[str, nn.Parameter], optimizer) -> None:
    """Writes the state after `step` updates beside the previous one, then in its place."""
    tensors = {f"weight/{name}": p.detach().contiguous() for name, p in trainable.items()}
    for name, p in trainable.items():
        for key, value in optimizer.state[p].items():
            tensors[f"optimizer/{key}/{name}"] = value
    sums = {name: _sum(tensor) for name, tensor in tensors.items()}
    about = {"step": str(step), "config": json.dumps(config, sort_keys=True), "sums": json.dumps(sums)}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        save_file(tensors, part, about)
    except BaseException:  # a full disk: what fits no longer must not take the room of what does
        part.unlink(missing_ok=True)
        raise
    replace(part, path)


def _sum(tensor: torch.Tensor) -> int:
    """Of its bits, as integers of the widest kind that fits: a page that was lost or overwritten changes it."""
    flat = tensor.detach().reshape(-1)
    flat = flat.clone() if flat.storage_offset() else flat  # which a wider kind could not be read from
    wide = next(
        kind for kind in (torch.int64, torch.int32, torch.int16, torch.uint8) if not flat.nbytes % kind.itemsize
    )
    return int(flat.view(wide).sum(dtype=torch.int64))


@torch.no_grad()
def restore(path: Path, config: dict, trainable: Mapping[str, nn.Parameter], optimizer) -> int | None:
    """Puts a state back and returns its step; None where there is none. Raises `UserError` where it does not fit."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata()
            if json.loads(about["config"]) != config:
                raise UserError(f"{path.parent.parent.name}: the checkpoint is of another configuration; move it away")
            if not 0 <= int(about["step"]) <= config["steps"]:
                raise ValueError(f"step {about['step']}")
            names = list(file.keys())
            if {name: _sum(file.get_tensor(name)) for name in names} != json.loads(about["sums"]):
                raise ValueError("its tensors are not those that were saved")
            for name, p in trainable.items():
                weight = file.get_tensor(f"weight/{name}")
                if weight.shape != p.shape:  # which `copy_` would stretch
                    raise ValueError(f"{name} has shape {tuple(weight.shape)}, not {tuple(p.shape)}")
                p.copy_(weight)
            for key in names:
                if key.startswith("optimizer/"):
                    _, kind, name = key.split("/", 2)
                    p = trainable[name]
                    optimizer.state[p][kind] = file.get_tensor(key).to(p.device)
            return int(about["step"])
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{path.parent.parent.name}: the checkpoint cannot be read ({error}); move it away") from None
