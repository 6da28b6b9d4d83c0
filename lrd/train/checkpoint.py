"""Resume state of a cell in one safetensors file: trainable weights, optimizer, position. No pickle.

All randomness of a cell is a function of (seed, step), so the position stands for every generator's state.
"""

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from lrd import UserError
from lrd.runs.files import replace

PATIENCE = 10  # a state that takes seconds to write is written once that many times as long has passed since the last


@dataclass
class Checkpoint:
    """Where a run's resume state lies, of what it is the state, and what writing it costs."""

    path: Path
    config: dict
    trainable: Mapping[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    _took: float = 0.0  # seconds of the last `save`
    _saved: float = -math.inf  # when it was there

    @property
    def cheap(self) -> bool:
        """Whether to save again costs little: it takes less than a second, or has not been done for long."""
        return self._took < 1 or time.perf_counter() - self._saved > PATIENCE * self._took

    def save(self, step: int) -> None:
        """Writes the state after `step` updates beside the previous one, then in its place."""
        start = time.perf_counter()
        tensors = {f"weight/{name}": p.detach().contiguous() for name, p in self.trainable.items()}
        for name, p in self.trainable.items():
            for key, value in self.optimizer.state[p].items():
                tensors[f"optimizer/{key}/{name}"] = value
        sums = {name: _sum(tensor) for name, tensor in tensors.items()}
        about = {"step": str(step), "config": json.dumps(self.config, sort_keys=True), "sums": json.dumps(sums)}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(f".{self.path.name}.part")
        try:
            save_file(tensors, part, about)
        except BaseException:  # a full disk: what fits no longer must not take the room of what does
            part.unlink(missing_ok=True)
            raise
        replace(part, self.path)
        self._saved = time.perf_counter()
        self._took = self._saved - start

    @torch.no_grad()
    def restore(self) -> int | None:
        """Puts the state back and returns its step; None where there is none. Raises `UserError` if it does not fit."""
        if not self.path.is_file():
            return None
        cell = self.path.parent.parent.name
        try:
            with safe_open(self.path, "pt") as file:
                about = file.metadata()
                if json.loads(about["config"]) != self.config:
                    raise UserError(f"{cell}: the checkpoint is of another configuration; move it away")
                if not 0 <= int(about["step"]) <= self.config["steps"]:
                    raise ValueError(f"step {about['step']}")
                names = list(file.keys())
                if {name: _sum(file.get_tensor(name)) for name in names} != json.loads(about["sums"]):
                    raise ValueError("its tensors are not those that were saved")
                for name, p in self.trainable.items():
                    weight = file.get_tensor(f"weight/{name}")
                    if weight.shape != p.shape:  # which `copy_` would stretch
                        raise ValueError(f"{name} has shape {tuple(weight.shape)}, not {tuple(p.shape)}")
                    p.copy_(weight)
                for key in names:
                    if key.startswith("optimizer/"):
                        _, kind, name = key.split("/", 2)
                        p = self.trainable[name]
                        self.optimizer.state[p][kind] = file.get_tensor(key).to(p.device)
                return int(about["step"])
        except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"{cell}: the checkpoint cannot be read ({error}); move it away") from None


def _sum(tensor: torch.Tensor) -> int:
    """Sum of its bits, as integers of the widest kind that fits: a page that was lost or overwritten changes it."""
    flat = tensor.detach().reshape(-1)
    flat = flat.clone() if flat.storage_offset() else flat  # which a wider kind could not be read from
    wide = next(
        kind for kind in (torch.int64, torch.int32, torch.int16, torch.uint8) if not flat.nbytes % kind.itemsize
    )
    return int(flat.view(wide).sum(dtype=torch.int64))
