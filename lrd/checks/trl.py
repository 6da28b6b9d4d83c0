"""TRL's own `GRPOTrainer` on our cells: the reference for the speed of a step and for the loss."""

import contextlib
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from peft import LoraConfig
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer  # pyright: ignore[reportMissingImports]

from lrd import grpo
from lrd.cell import Cell
from lrd.data import problems
from lrd.data.hub import location
from lrd.data.tokens import prompt
from lrd.models.loading import load_tokenizer
from lrd.verifier import is_correct

LOSS_TYPES = {"token": "bnpo", "sequence": "grpo", "constant": "dr_grpo"}  # our aggregation → TRL's name for it
BETA, EPSILON, WIDTH = 0.07, 0.2, 24  # of the loss; tokens of a completion


def step_seconds(cell: Cell, folder: Path, steps: int) -> list[float]:
    """Seconds of each step of TRL's trainer on the cell's model, prompts, shapes and engine."""

    def reward(completions: Any, answer: Any, **kwargs: Any) -> Any:
        return [float(is_correct(text, gold, cell.grading)) for text, gold in zip(completions, answer)]

    pool, _ = problems.train_pool(cell.train_data)
    asked, words = pool[: 4 * steps * cell.prompts_per_step], load_tokenizer(cell.student, "student")
    rows = [{"prompt": prompt(p.problem, cell, words), "answer": p.answer} for p in asked]
    dtype, clock = cell.master_dtype if cell.rank is None else cell.dtype, _Clock()
    with _silence():
        trainer = GRPOTrainer(
            # Loaded as TRL's users load it, without the kernels that our learner brings.
            model=AutoModelForCausalLM.from_pretrained(
                location(cell.student, "student"), dtype=getattr(torch, dtype), use_safetensors=True
            ),
            processing_class=words,
            reward_funcs=reward,
            args=_config(cell, folder, steps),
            train_dataset=Dataset.from_list(rows),
            peft_config=_adapter(cell),
            callbacks=[clock],
        )
        trainer.train()
    return clock.seconds


class _Clock(TrainerCallback):
    def __init__(self):
        self.seconds: list[float] = []

    def on_step_begin(self, args, state, control, **kwargs):
        self.start = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - self.start)


def _config(cell: Cell, folder: Path, steps: int) -> GRPOConfig:
    engine: dict[str, Any] = {}
    passes = 1
    if cell.engine == "vllm":
        engine = {"use_vllm": True, "vllm_mode": "colocate", "vllm_gpu_memory_utilization": 0.2}
        engine |= {"vllm_max_model_length": cell.max_completion_tokens + 512}
        passes = cell.prompts_per_step  # at the original's scale a batch's logits do not fit at once
    return GRPOConfig(
        output_dir=str(folder / "trl"),
        per_device_train_batch_size=cell.prompts_per_step * cell.samples_per_prompt // passes,
        gradient_accumulation_steps=passes,
        num_generations=cell.samples_per_prompt,
        max_completion_length=cell.max_completion_tokens,
        max_steps=steps,
        learning_rate=cell.learning_rate,
        temperature=cell.temperature,
        top_p=cell.top_p,
        beta=cell.kl_coef,
        loss_type="bnpo",
        gradient_checkpointing=False,
        bf16=cell.dtype == "bfloat16",
        use_cpu=not torch.cuda.is_available(),
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        **engine,
    )


def _adapter(cell: Cell) -> LoraConfig | None:
    if cell.rank is None:
        return None
    alpha, targets = int(cell.lora_alpha), list(cell.lora_targets)
    return LoraConfig(r=cell.rank, lora_alpha=alpha, target_modules=targets, task_type="CAUSAL_LM")


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Without warnings and without standard output. Not into a string: vLLM asks for its file descriptor."""
    with (
        warnings.catch_warnings(),
        open(os.devnull, "w", encoding="utf-8") as nowhere,
        contextlib.redirect_stdout(nowhere),
    ):
        warnings.simplefilter("ignore")
        logging.getLogger("trl").setLevel(logging.ERROR)
        yield


class Gap(NamedTuple):
    """How far our loss is from TRL's on one batch: the losses' difference, and the largest of any gradient."""

    loss: float
    gradient: float
    clipped: float  # share of the tokens


def loss_trainer(student: str) -> Any:
    """A trainer of the checkpoint `student` whose loss can be asked."""
    with tempfile.TemporaryDirectory() as folder:
        return GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(student),
            reward_funcs=lambda completions, **_: [0.0] * len(completions),
            args=GRPOConfig(
                output_dir=folder, report_to="none", use_cpu=True, bf16=False, gradient_checkpointing=False,
                per_device_train_batch_size=4, num_generations=4, max_completion_length=WIDTH, temperature=1.0,
                beta=BETA, epsilon=EPSILON, use_bias_correction_kl=False, use_vllm=False,
            ),
            train_dataset=Dataset.from_dict({"prompt": ["Last digit:1a+2\n"]}),
            processing_class=AutoTokenizer.from_pretrained(student),
        )  # fmt: skip


def loss_gap(trainer: Any, aggregation: str, kl_estimator: str, seed: int) -> Gap:
    """Our loss against the trainer's on four random completions, drawn from `seed`.

    Both get the same tokens, advantages, log π_old, log π_ref and the log π_θ of TRL's forward pass, off-policy by up
    to e^±0.5 so that clipping acts.
    """
    trainer.loss_type = LOSS_TYPES[aggregation]
    model, generator = trainer.model.eval(), torch.Generator().manual_seed(seed)
    words = len(trainer.processing_class)
    prompts = torch.randint(2, words, (4, 9), generator=generator)
    completions = torch.randint(2, words, (4, WIDTH), generator=generator)
    mask = torch.arange(WIDTH)[None] < torch.tensor([WIDTH, 1, 7, 15])[:, None]
    ids, seen = torch.cat([prompts, completions], 1), torch.cat([torch.ones_like(prompts), mask.long()], 1)
    logps = trainer._get_per_token_logps_and_entropies(model, ids, seen, WIDTH)[0]
    old, ref = (logps.detach() + torch.rand(4, WIDTH, generator=generator) - 0.5 for _ in range(2))
    advantages = torch.randn(4, WIDTH, generator=generator)
    theirs = trainer._compute_loss(
        model,
        dict(
            prompt_ids=prompts, prompt_mask=torch.ones_like(prompts), completion_ids=completions,
            completion_mask=mask.long(), advantages=advantages, old_per_token_logps=old, ref_per_token_logps=ref,
        ),
    )  # fmt: skip
    ours, about = grpo.loss(
        logps, old, ref, advantages, mask, clip_epsilon=EPSILON, kl_coef=BETA, kl_estimator=kl_estimator,
        aggregation=aggregation, max_tokens=WIDTH,
    )  # fmt: skip
    one, other = (_gradients(model, loss) for loss in (theirs, ours))
    gradient = max((a - b).abs().max().item() for a, b in zip(one, other))
    return Gap(abs(theirs.item() - ours.item()), gradient, about["clip_ratio/region_mean"])


def _gradients(model: Any, loss: Tensor) -> list[Tensor]:
    model.zero_grad()
    loss.backward()
    return [p.grad.clone() for p in model.parameters()]
