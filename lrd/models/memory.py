"""How much memory a cell takes, worked out from its models' configurations before any weight is read."""

import dataclasses
import importlib.util
import math
from dataclasses import dataclass

import psutil
import torch

from lrd import UserError
from lrd.cell import Cell
from lrd.models.loading import CausalLM, skeleton
from lrd.models.logps import LOGITS_AT_ONCE
from lrd.models.placement import adapted, moves_base
from lrd.models.shape import Shape
from lrd.names import codebook_name
from lrd.rollouts import TOKENS_PER_PASS

GIB = 2**30
BYTES = {"float32": 4, "bfloat16": 2}
ROOM = 512  # tokens of a prompt that an engine keeps room for
PROMPT, KEY = 256, 16  # tokens of a prompt in a training batch; of one that asks for a codebook's key
CUDA = 1.0  # GiB: its context and kernels


@dataclass(frozen=True)
class Size:
    """What decides the memory that a model takes."""

    parameters: int
    adapter: int  # parameters of a rank-1 adapter
    kept: int  # values of a token that its layers keep for the gradient
    widest: int  # values of a token in one layer, while it is read
    shape: Shape


def size(model: CausalLM, targets: tuple[str, ...], layers: tuple[int, ...] = ()) -> Size:
    """The sizes of a causal LM, whose weights are not read; `targets` and `layers` place its adapter.

    A layer keeps, a token: its input and its second norm's, both norms' outputs, queries and keys before and behind the
    rotation, values, attention's output, and gate, up and their product.
    """
    shape = Shape.from_config(model.config)
    hidden, inner = shape.hidden_size, shape.intermediate_size
    plain = 0 if importlib.util.find_spec("liger_kernel") else inner + 4 * hidden  # SiLU's output, norms in fp32
    return Size(
        parameters=sum(p.numel() for p in model.parameters()),
        adapter=sum(sum(m.weight.shape) for m in adapted(model, targets, layers).values()),
        kept=shape.num_hidden_layers * (4 * hidden + 3 * shape.queries + 3 * shape.keys + 3 * inner + plain),
        widest=4 * hidden + 3 * inner,
        shape=shape,
    )


def decoded_rows(cell: Cell) -> int:
    """The most rows that a cell's engine completes at once: a step's, or an evaluation's."""
    return max(cell.prompts_per_step * cell.samples_per_prompt, min(cell.eval_batch, cell.eval_problems))


def needed_gib(cell: Cell, student: Size, scorer: Size | None = None) -> dict[str, float]:
    """GiB that a cell takes at its peak, by what takes them; `scorer` is the reward's own model.

    Assumed: every completion runs to its longest; the activations of all rows, or of `micro_batch` of them, prompts of
    `PROMPT` tokens (or `KEY`) included, are kept until the backward pass, or with checkpointing each layer's input and
    one layer's own; a slice of logits is there three times over, for its gradient; the engine has weights of its own
    and a cache for as many rows as it ever decodes, with `ROOM` tokens for each prompt; nothing is handed back in
    between. A frozen base serves as its own reference. What is trained, its gradient and two moments are in
    `master_dtype` (an adapter's in fp32), and there is a copy in `dtype`. Without flash attention it takes more.
    """
    b, rows = BYTES[cell.dtype], cell.prompts_per_step * cell.samples_per_prompt
    trained = student.adapter * cell.rank if cell.rank else student.parameters
    master = 4 if cell.rank else BYTES[cell.master_dtype]
    length = (KEY if codebook_name(cell.train_data) else PROMPT) + cell.max_completion_tokens
    tokens, at_once = rows * length, min(cell.micro_batch or rows, rows) * length
    layers, kept = student.shape.num_hidden_layers, student.kept
    kept = layers * student.shape.hidden_size + kept // layers if cell.checkpointing == "layers" else kept
    cached = decoded_rows(cell) * (ROOM + cell.max_completion_tokens) * student.shape.cached
    used = {
        "student and reference": student.parameters * b * (2 if moves_base(cell) else 1),
        "what is trained": trained * (4 * master + b),
        "engine": student.parameters * b + cached * b,
        "activations": at_once * kept * b + 3 * 4 * min(LOGITS_AT_ONCE, at_once * student.shape.vocab_size),
        "reward model": scorer.parameters * b + min(TOKENS_PER_PASS, tokens) * scorer.widest * b if scorer else 0,
    }
    return {name: n / GIB for name, n in used.items() if n} | {"CUDA": CUDA}


def check(cell: Cell, device: torch.device, scorer: str | None = None, *, has_engine: bool = False) -> None:
    """Raises `UserError` where a cell needs more memory than there is; `scorer` is the role of the reward's own model.

    Free memory of the GPU counts, or the machine's where there is none; `has_engine`: an engine has its share already.
    """
    sizes = [
        size(skeleton(name, role), cell.lora_targets, cell.lora_layers)
        for name, role in ((getattr(cell, role.lower()), role) for role in ("student", scorer) if role)
    ]
    if device.type == "cuda":
        free, where = torch.cuda.mem_get_info(device)[0] / GIB, f"{torch.cuda.get_device_name(device)} has"
    else:
        free, where = psutil.virtual_memory().available / GIB, "there is no GPU here, and the machine has"
    needed = needed_gib(cell, *sizes)
    if device.type != "cuda":
        del needed["CUDA"]
    if has_engine:
        del needed["engine"]
    if (total := sum(needed.values())) > free:
        parts = ", ".join(f"{name} {gib:.1f}" for name, gib in needed.items())
        raise UserError(
            f"{cell.name} needs about {total:.0f} GiB ({parts}); {where} {free:.0f} GiB free; "
            f"{fitting(cell, sizes, free)} would fit"
        )


def fitting(cell: Cell, sizes: list[Size], free: float) -> str:
    """What makes the cell fit: fewer rows at an evaluation, then shorter completions, else another machine."""
    changes: dict[str, int] = {}
    for key, value in (("eval_batch", cell.eval_batch), ("max_completion_tokens", cell.max_completion_tokens)):
        while (value := value // 2) >= 16:
            changes[key] = value
            if sum(needed_gib(dataclasses.replace(cell, **changes), *sizes).values()) <= free:
                return " ".join(f"--set {name}={fits}" for name, fits in changes.items())
    return f"a GPU with {math.ceil(sum(needed_gib(cell, *sizes).values()))} GiB"
