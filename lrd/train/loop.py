"""One cell, from its configuration to its last evaluation: sample, score, advantages, loss, step.

With one update a rollout the samples are on-policy: log π_old is the learner's own detached log π_θ and the ratio is 1.
"""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lrd import UserError, grpo, rewards, sampling
from lrd.cell import Cell, codebook_name
from lrd.data import problems
from lrd.data.tokens import solutions
from lrd.models import loading as models, memory
from lrd.models.logps import TokenLogps
from lrd.models.policy import Policy, seed_of
from lrd.rewards import shaping
from lrd.rollouts import Completion, Rollouts, collate
from lrd.runs.directory import Run
from lrd.runs.signals import on_stop
from lrd.sampling import Sampler
from lrd.train import checkpoint, evaluate, inputs
from lrd.verifier import is_correct

PATIENCE = 10  # a checkpoint that takes seconds is written once that many times as long has passed since the last one
MAX_SKIPPED = 3  # updates in a row without a finite gradient; then the cell has failed


class Diverged(RuntimeError):
    """Several updates in a row had no finite loss or gradient."""


def train(run: Run, sampler: Sampler | None = None, tell: evaluate.Tell = evaluate.silent) -> Iterator[dict[str, Any]]:
    """Trains the run's cell, or what is left of it, and yields the metrics of each step as it is recorded.

    A finished cell yields nothing; `tell` follows each evaluation. SIGINT and SIGTERM end training with
    KeyboardInterrupt once the step under way is done and its state saved. Every check of the input comes before the
    first step and raises `UserError`; any other error is left in the run directory before it goes on up. Call
    `run.finish()` once all is recorded.
    """
    if run.finished:
        return
    run.hold()  # an earlier call that was interrupted gave the directory up
    step = 0
    try:
        for metrics in _train(run, sampler, tell):
            step = metrics["step"]
            yield metrics
    except UserError:
        run.close()
        raise
    except Exception as error:
        run.fail(error, step)
        run.close()
        raise
    except BaseException:  # Ctrl-C, or the caller stopped listening: interrupted, to be resumed
        run.close()
        raise


def _train(run: Run, sampler: Sampler | None, tell: evaluate.Tell) -> Iterator[dict[str, Any]]:
    cell, device = run.cell, models.device()
    pool, dropped = problems.train_pool(cell.train_data, cell.prompts_per_step)
    held_out = problems.held_out(cell.eval_data, cell.eval_problems)
    validation = problems.validation(cell.eval_data, cell.validation_problems, cell.eval_problems)
    tokenizer = models.load_tokenizer(cell.student, "student")
    inputs.check(cell, tokenizer, pool, [*held_out, *validation])
    memory.check(cell, device, rewards.model_of(cell), has_engine=sampler is not None)
    reward = rewards.load(cell, tokenizer, device)
    policy = Policy(cell, device)
    sampler = sampler or sampling.load(cell, policy.base, policy.tokenizer)
    optimizer = torch.optim.AdamW(
        policy.trainable.values(), lr=cell.learning_rate, weight_decay=cell.weight_decay, fused=True
    )
    restored = checkpoint.restore(run.checkpoint, cell.config, policy.trainable, optimizer)
    found = inputs.end_tokens(cell, tokenizer) | rewards.probe(reward, cell, tokenizer, pool, device)
    run.begin(step=restored, about=found | _about(policy, sampler, pool, dropped))

    took, saved = 0.0, -math.inf  # seconds of the last checkpoint; when it was there

    def save(step: int) -> None:
        nonlocal took, saved
        start = time.perf_counter()
        checkpoint.save(run.checkpoint, step, cell.config, policy.trainable, optimizer)
        saved = time.perf_counter()
        took = saved - start

    def evaluated(step: int) -> float:
        rows = evaluate.greedy(sampler, [*held_out, *validation], cell, policy.tokenizer, tell)
        rows, beside = rows[: len(held_out)], rows[len(held_out) :]
        if codebook_name(cell.eval_data):
            rows = evaluate.with_bits(rows, policy.model, held_out, cell, policy.tokenizer)
        if beside:  # first: where the test split's rows are on record, so are these
            run.record("validation", [{"step": step} | row for row in beside])
        run.record("evals", [{"step": step} | row for row in rows])
        if took < 1 or step == cell.steps or time.perf_counter() - saved > PATIENCE * took:
            save(step)
        return sum(row["correct"] for row in rows) / len(rows)

    sampler.sync(policy.weights())
    begun = restored or 0
    due = begun % cell.eval_every == 0 or begun == cell.steps  # a cell that failed then was saved without it
    accuracy = evaluated(begun) if due and not run.evaluated(begun) else run.last_accuracy()
    skipped_in_a_row = 0
    for step in until_stopped(range(begun + 1, cell.steps + 1), save):
        shown = step % cell.eval_every == 1 or step == cell.steps
        clock = Laps(device)
        batch = sample(policy, sampler, pool, step, logps=shown)
        clock.lap("rollout")
        learner = policy.logps(batch)
        clock.lap("learner")
        deposits = reward(batch, learner.logps.detach())
        advantages = credit(deposits, batch, cell)
        metrics = describe(batch, deposits, advantages, learner, cell)
        clock.lap("reward")
        ref_logps = policy.reference_logps(batch) if cell.kl_coef else learner.logps.detach()
        clock.lap("reference")
        metrics |= update(policy, optimizer, batch, learner, ref_logps, advantages)
        if not cell.kl_coef:
            metrics["kl"] = math.nan  # nobody asks for it, and the reference was not read
        if cell.rank is None:
            metrics["weights_moved"] = moved(policy)
        clock.lap("update")
        sampler.sync(policy.weights())
        clock.lap("sync")
        metrics |= {"step": step, "step_time": sum(clock.seconds.values())} | clock.metrics
        if device.type == "cuda":
            metrics |= {"memory/peak_gib": torch.cuda.max_memory_allocated(device) / 2**30}
            torch.cuda.reset_peak_memory_stats(device)
        run.record("metrics", [metrics])
        if shown:
            run.record("completions", logged(step, batch, deposits, advantages, policy.tokenizer, cell))
        skipped_in_a_row = skipped_in_a_row + 1 if metrics["skipped_updates"] else 0
        if skipped_in_a_row == MAX_SKIPPED:
            save(step)
            raise Diverged(f"steps {step - MAX_SKIPPED + 1} to {step} had no finite loss or gradient; state is saved")
        if step % cell.eval_every == 0 or step == cell.steps:
            accuracy = evaluated(step)
        yield metrics | {"pass@1": accuracy}
    policy.save(run.weights)


class Laps:
    """Seconds of each part of a step; waits for the device, which works on while Python goes ahead."""

    def __init__(self, device: torch.device):
        self.seconds: dict[str, float] = {}
        self._device, self._last = device, time.perf_counter()

    def lap(self, part: str) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self._last, before = time.perf_counter(), self._last
        self.seconds[part] = self._last - before

    @property
    def metrics(self) -> dict[str, float]:
        return {f"time/{part}": seconds for part, seconds in self.seconds.items()}


def until_stopped(steps: range, save: Callable[[int], None]) -> Iterator[int]:
    """The steps, one after the other, until SIGINT or SIGTERM comes: Ctrl-C, the stop button, a host taken away.

    Then the one under way is the last: its state is saved and KeyboardInterrupt raised. A second Ctrl-C does not wait.
    """
    with on_stop() as asked:
        for step in steps:
            yield step
            if asked:
                save(step)
                raise KeyboardInterrupt(f"stopped after step {step}; its state is saved")


def sample(
    policy: Policy, sampler: Sampler, pool: list[problems.Problem], step: int, *, logps: bool = False
) -> Rollouts:
    """The rollouts of one step: G completions of each of P prompts, a function of weights, seed and step.

    Where the regime demonstrates, each completion is the problem's solution, whatever the weights.
    """
    cell = policy.cell
    chosen = problems.prompts_at(step - 1, pool, cell.prompts_per_step, cell.seed)
    prompts = [evaluate.encode(p, cell, policy.tokenizer) for p in chosen]
    if rewards.demonstrates(cell):
        right = solutions([p.solution or "" for p in chosen], policy.tokenizer)
        shown = [Completion(ids, None, False) for ids in right for _ in range(cell.samples_per_prompt)]
        return collate(chosen, prompts, shown, cell.samples_per_prompt, policy.tokenizer)
    completions = sampler.sample(
        [ids for ids in prompts for _ in range(cell.samples_per_prompt)],
        max_tokens=cell.max_completion_tokens,
        temperature=cell.temperature,
        top_p=cell.top_p,
        seed=seed_of("sampling", cell.seed, step),
        logps=logps,
    )
    return collate(chosen, prompts, completions, cell.samples_per_prompt, policy.tokenizer)


def update(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    batch: Rollouts,
    learner: TokenLogps,
    ref_logps: Float[Tensor, "N T"],
    advantages: Float[Tensor, "N T"],
) -> dict[str, float]:
    """`epochs` gradient steps on one batch; one without a finite loss or gradient is skipped and counted.

    `learner` is the policy's forward pass over the batch, made before any of these steps.
    """
    cell = policy.cell
    old_logps = learner.logps.detach()
    advantages, mask = advantages.to(old_logps.device), batch.completion_mask.to(old_logps.device)
    metrics, skipped = {}, 0
    for epoch in range(cell.epochs):
        loss, about = grpo.loss(
            learner.logps if epoch == 0 else policy.logps(batch).logps,
            old_logps,
            ref_logps,
            advantages,
            mask,
            clip_epsilon=cell.clip_epsilon,
            kl_coef=cell.kl_coef,
            kl_estimator=cell.kl_estimator,
            aggregation=cell.loss_aggregation,
            max_tokens=cell.max_completion_tokens,
        )
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(policy.trainable.values(), cell.max_grad_norm)
        value, size = torch.stack([loss.detach(), norm]).tolist()
        if math.isfinite(value) and math.isfinite(size):
            optimizer.step()
        else:
            skipped += 1
        optimizer.zero_grad()
        metrics = about | {"loss": value, "grad_norm": size}
    return metrics | {"skipped_updates": skipped}


def credit(deposits: rewards.Deposits, batch: Rollouts, cell: Cell) -> Float[Tensor, "N T"]:
    """Advantages of a batch, by the cell's options. Raises `ValueError` where deposits are not on its tokens."""
    deposits.check(batch)
    deposits = shaping.shaped(deposits, batch, cell)
    found = grpo.advantages(deposits, batch.group, cell.advantage_epsilon, cell.advantage_norm, cell.to_go)
    if cell.advantage_scale == "whitened":
        found = grpo.whitened(found, batch.completion_mask)
    return grpo.bounded(found, cell.advantage_cap)


@torch.no_grad()
def moved(policy: Policy) -> float:
    """Share of a fully trained student's weights that differ from the base's, both as the forward pass reads them."""
    pairs = list(zip(policy.model.parameters(), policy.reference.parameters(), strict=True))
    different = sum((now.to(before.dtype) != before).sum() for now, before in pairs)
    return float(different) / sum(before.numel() for _, before in pairs)


@torch.no_grad()
def describe(
    batch: Rollouts, deposits: rewards.Deposits, advantages: Tensor, learner: TokenLogps, cell: Cell
) -> dict[str, Any]:
    """What is logged of a batch before its update, under TRL's names where TRL has one."""
    mask, lengths = batch.completion_mask, batch.lengths.float()
    by_group = deposits.trajectory_rewards.view(-1, cell.samples_per_prompt)
    right = [is_correct(text, p.answer, cell.grading) for text, p in zip(batch.texts, batch.problems)]
    wrong = ~torch.tensor(right)
    metrics = {
        "reward": by_group.mean().item(),
        "reward_std": by_group.std(1).mean().item() if cell.samples_per_prompt > 1 else 0.0,
        "frac_reward_zero_std": (by_group == by_group[:, :1]).all(1).float().mean().item(),
        "accuracy": sum(right) / len(right),
        "advantage_std": advantages[mask].std().item(),
        "deposits/last_if_wrong": _mean(deposits.token_rewards[shaping.last(deposits) & wrong[:, None]]),
        "deposits_per_episode": deposits.deposit_mask.sum(1).float().mean().item(),
        "entropy": grpo.aggregate(learner.entropy.cpu(), mask).item(),
        "completions/mean_length": lengths.mean().item(),
        "completions/max_length": lengths.max().item(),
        "completions/clipped_ratio": batch.truncated.float().mean().item(),
    }
    if batch.sampler_logps is not None and cell.logp_temperature == 1:  # the sampler's are at temperature 1
        gap = (batch.sampler_logps - learner.logps.cpu())[mask].abs()
        metrics["sampling/sampling_logp_difference/mean"] = gap.mean().item()
        metrics["sampling/sampling_logp_difference/max"] = gap.max().item()
    return metrics


def _mean(values: Tensor) -> float:
    """Without values not a number, and without a warning."""
    return values.mean().item() if len(values) else math.nan


def logged(
    step: int, batch: Rollouts, deposits: rewards.Deposits, advantages: Tensor, tokenizer, cell: Cell
) -> list[dict[str, Any]]:
    """The first trajectories of a batch, token by token, as `completions.jsonl` keeps them."""
    rows = []
    for i in range(min(cell.logged_completions, len(batch.problems))):
        n, problem = int(batch.lengths[i]), batch.problems[i]
        rows.append(
            {
                "step": step,
                "problem": problem.problem,
                "answer": problem.answer,
                "correct": is_correct(batch.texts[i], problem.answer, cell.grading),
                "truncated": bool(batch.truncated[i]),
                "tokens": tokenizer.batch_decode([[token] for token in batch.ids_of(i)]),
                "token_rewards": deposits.token_rewards[i, :n].tolist(),
                "deposit_mask": deposits.deposit_mask[i, :n].tolist(),
                "advantages": advantages[i, :n].tolist(),
            }
        )
    return rows


def _about(policy: Policy, sampler: Sampler, pool: list[problems.Problem], dropped: int) -> dict[str, Any]:
    """What only the training side knows of a run: its device, engine and sizes, the data that it saw."""
    on = policy.device
    return {
        "device": torch.cuda.get_device_name(on) if on.type == "cuda" else on.type,
        "threads": torch.get_num_threads(),
        "engine": type(sampler).__module__.rpartition(".")[2],  # the one that samples, whatever was asked for
        "trainable_parameters": sum(p.numel() for p in policy.trainable.values()),
        "parameters": sum(p.numel() for p in policy.base.parameters() if p.requires_grad or policy.cell.rank),
        "train_problems": len(pool),
        "train_problems_dropped": dropped,
    }
