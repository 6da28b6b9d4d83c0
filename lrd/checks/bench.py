"""How fast is a step, side by side with TRL's, and a rollout, side by side with `transformers.generate`?

Same model, same prompts, same shapes, one process and one thread, measured in turns, so that a machine whose speed
drifts drifts for both. TRL comes with the `test` extra.
"""

import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lrd import UserError
from lrd.cell import Cell
from lrd.data import problems
from lrd.models import loading as models
from lrd.models.policy import Policy
from lrd.rollouts import pad
from lrd.runs.directory import Run
from lrd.sampling.torch import TorchSampler
from lrd.train import evaluate
from lrd.train.loop import train

ROUNDS, STEPS, TOKENS = 2, 10, 64
WARM_UP = 3  # steps and calls that are not counted
PARTS = ("rollout", "learner", "reward", "reference", "update", "sync")


def run(preset: str) -> str:
    """Measures and returns the table as text. Raises `UserError` where TRL is not installed."""
    if importlib.util.find_spec("trl") is None:
        raise UserError("lrd bench compares with TRL, which is not installed: pip install -e '.[test]'")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        settings = _endless(preset, Path(folder))
        cells = [Cell.load(preset, regime="outcome", rank=rank, seed=0, **settings) for rank in (16, None)]
        per_step = f"{cells[0].prompts_per_step} × {cells[0].samples_per_prompt}"
        lines = [f"{preset}: {per_step} completions of {TOKENS} tokens"]
        for cell in cells:
            lines += _rollouts(cell) + _steps(cell, Path(folder))
    lines.append(
        "what limits the rest: score and update are passes over the same tokens that TRL makes too, bound by "
        "arithmetic; a rollout is one small operation after another, bound by their dispatch"
    )
    return "\n".join(lines)


def _endless(preset: str, folder: Path) -> dict[str, Any]:
    """Settings of a short cell whose student never says its end-of-sequence token, so that all completions are full."""
    cell = Cell.load(preset, regime="outcome", rank=16, seed=0)
    model = models.load_model(cell.student, "student", cell.dtype, torch.device("cpu"))
    tokenizer = models.load_tokenizer(cell.student, "student")
    tokenizer.eos_token = tokenizer.unk_token
    model.generation_config.eos_token_id = model.config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder / "student")
    tokenizer.save_pretrained(folder / "student")
    short = {"max_completion_tokens": TOKENS, "steps": STEPS, "eval_every": STEPS + 1, "eval_problems": 1}
    return short | {"student": str(folder / "student")}


def _in_turns(a: Callable[[], list[float]], b: Callable[[], list[float]]) -> tuple[float, float]:
    """Median seconds of each, from rounds in turns."""
    times_a, times_b = [], []
    for _ in range(ROUNDS):
        times_a += a()
        times_b += b()
    return statistics.median(times_a), statistics.median(times_b)


def _line(what: str, cell: Cell, ours: float, name: str, theirs: float) -> str:
    arm = "full fine-tuning" if cell.rank is None else f"rank {cell.rank}"
    return f"  {what:<8} {arm:<17} ours {ours:.3f} s   {name} {theirs:.3f} s   {theirs / ours:.1f} times as fast"


def _rollouts(cell: Cell) -> list[str]:
    policy = Policy(cell, models.device())
    pool, _ = problems.train_pool(cell.train_data)
    chosen = problems.prompts_at(0, pool, cell.prompts_per_step, cell.seed)
    prompts = [evaluate.encode(p, cell, policy.tokenizer) for p in chosen for _ in range(cell.samples_per_prompt)]
    sampler = TorchSampler(policy.base, policy.tokenizer)
    ids, mask = (x.to(policy.device) for x in pad(prompts, policy.tokenizer.pad_token_id, left=True))

    def ours() -> None:
        sampler.sync(policy.weights())
        sampler.sample(prompts, max_tokens=TOKENS, temperature=cell.temperature, top_p=cell.top_p)

    @torch.inference_mode()
    def theirs() -> None:
        how = {"do_sample": True, "temperature": cell.temperature, "top_p": cell.top_p, "top_k": 0}
        policy.model.generate(
            input_ids=ids, attention_mask=mask.long(), min_new_tokens=TOKENS, max_new_tokens=TOKENS, **how
        )

    a, b = _in_turns(lambda: _timed(ours), lambda: _timed(theirs))
    return [_line("rollout", cell, a, "transformers.generate", b)]


def _timed(call: Callable[[], None]) -> list[float]:
    seconds = []
    for _ in range(WARM_UP + STEPS):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds[WARM_UP:]


def _steps(cell: Cell, folder: Path) -> list[str]:
    parts: list[dict[str, Any]] = []

    def ours() -> list[float]:
        with tempfile.TemporaryDirectory(dir=folder) as runs:
            steps = list(train(Run(cell, runs)))[WARM_UP:]
        parts.extend(steps)
        return [step["step_time"] for step in steps]

    from lrd.checks import trl

    a, b = _in_turns(ours, lambda: trl.step_seconds(cell, folder, STEPS)[WARM_UP:])
    shares = ", ".join(f"{name} {statistics.median(p[f'time/{name}'] for p in parts) / a:.0%}" for name in PARTS)
    return [_line("step", cell, a, "TRL's GRPOTrainer", b), f"           of ours: {shares}"]
