"""One cell, from its configuration to its last evaluation: sample, score, advantages, loss, step.

With one update a rollout the samples are on-policy: log π_old is the learner's own detached log π_θ and the ratio is 1.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lrd import UserError, grpo, rewards, sampling
from lrd.cell import Cell
from lrd.data import problems
from lrd.data.tokens import solutions
from lrd.models import loading as models, memory
from lrd.models.policy import Policy, seed_of
from lrd.rewards import shaping
from lrd.rollouts import Completion, Deposits, Rollouts, collate
from lrd.runs.directory import Run, means
from lrd.runs.signals import on_stop
from lrd.sampling import Sampler
from lrd.train import evaluate, inputs
from lrd.train.checkpoint import Checkpoint
from lrd.train.metrics import Laps, about, describe, logged, moved
from lrd.train.update import update

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
    except BaseException as error:  # Ctrl-C, or the caller stopped listening: interrupted, to be resumed
        if isinstance(error, Exception) and not isinstance(error, UserError):
            run.fail(error, step)
        run.close()
        raise


@dataclass(frozen=True)
class Parts:
    """What a cell trains with, loaded and checked against each other."""

    run: Run
    policy: Policy
    sampler: Sampler
    reward: rewards.Reward
    score: rewards.Reward | None
    optimizer: torch.optim.Optimizer
    pool: list[problems.Problem]
    asked: list[problems.Asked]
    checkpoint: Checkpoint


def _train(run: Run, sampler: Sampler | None, tell: evaluate.Tell) -> Iterator[dict[str, Any]]:
    """The steps after the last checkpoint, and each evaluation that is due."""
    cell = run.cell
    parts, done = _prepare(run, sampler)
    due = done % cell.eval_every == 0 or done == cell.steps  # a cell that failed then was saved without it
    evaluation = _evaluate(parts, done, tell) if due and not run.evaluated(done) else run.last_evaluation()
    skipped_in_a_row = 0
    with on_stop() as asked:
        for step in range(done + 1, cell.steps + 1):
            metrics = _step(parts, step)
            skipped_in_a_row = skipped_in_a_row + 1 if metrics["skipped_updates"] else 0
            if skipped_in_a_row == MAX_SKIPPED:
                parts.checkpoint.save(step)
                first = step - MAX_SKIPPED + 1
                raise Diverged(f"steps {first} to {step} had no finite loss or gradient; state is saved")
            if step % cell.eval_every == 0 or step == cell.steps:
                evaluation = _evaluate(parts, step, tell)
            yield metrics | evaluation
            if asked:
                parts.checkpoint.save(step)
                raise KeyboardInterrupt(f"stopped after step {step}; its state is saved")
    parts.policy.save(run.weights)


def _step(parts: Parts, step: int) -> dict[str, Any]:
    """One step, from samples to weights; its metrics, which are on record then."""
    run, policy, cell = parts.run, parts.policy, parts.run.cell
    shown = step % cell.eval_every == 1 or step == cell.steps  # its completions are kept
    clock = Laps(policy.device)
    batch = sample(policy, parts.sampler, parts.pool, step, logps=shown)
    clock.lap("rollout")
    learner = policy.logps(batch)
    clock.lap("learner")
    deposits = parts.reward(batch, learner.logps.detach())
    advantages = credit(deposits, batch, cell)
    metrics = describe(batch, deposits, advantages, learner, cell)
    clock.lap("reward")
    ref_logps = policy.reference_logps(batch) if cell.kl_coef else learner.logps.detach()
    clock.lap("reference")
    metrics |= update(policy, parts.optimizer, step, batch, learner, ref_logps, advantages)
    metrics |= {} if cell.rank else {"weights_moved": moved(policy)}
    clock.lap("update")
    parts.sampler.sync(policy.weights())
    clock.lap("sync")
    metrics |= {"step": step} | clock.metrics
    run.record("metrics", [metrics])
    if shown:
        run.record("completions", logged(step, batch, deposits, advantages, policy.tokenizer, cell))
    return metrics


def _evaluate(parts: Parts, step: int, tell: evaluate.Tell) -> dict[str, float]:
    """An evaluation after a step, in means. All answers are recorded, and the state saved where that costs little or
    is the last."""
    run, rows = parts.run, []
    for log, rows in evaluate.records(parts.sampler, parts.asked, parts.policy, tell, parts.score):
        run.record(log, [{"step": step} | row for row in rows])
    if parts.checkpoint.cheap or step == run.cell.steps:
        parts.checkpoint.save(step)
    return means(rows)  # of the set that decides, which comes last


def _prepare(run: Run, sampler: Sampler | None) -> tuple[Parts, int]:
    """Loads models and problems, restores the checkpoint, and begins the run; the step to go on from."""
    cell, device = run.cell, models.device()
    pool, dropped = problems.train_pool(cell.train_data, cell.prompts_per_step)
    asked = problems.asked(cell.eval_data, cell.eval_problems, cell.validation_problems)
    tokenizer = models.load_tokenizer(cell.student, "student")
    inputs.check(cell, tokenizer, pool, [problem for each in asked for problem in each.problems])
    memory.check(cell, device, rewards.model_of(cell), has_engine=sampler is not None)
    reward = rewards.load(cell, tokenizer, device)
    score = rewards.load_evaluation(cell, reward, tokenizer, device)
    policy = Policy(cell, device)
    sampler = sampler or sampling.load(cell, policy.base, policy.tokenizer)
    optimizer = torch.optim.AdamW(
        policy.trainable.values(), lr=cell.learning_rate, weight_decay=cell.weight_decay, fused=True
    )
    checkpoint = Checkpoint(run.checkpoint, cell.config, policy.trainable, optimizer)
    step = checkpoint.restore()
    tried = inputs.end_tokens(cell, tokenizer) | rewards.probe(reward, cell, tokenizer, pool, device)
    run.begin(step=step, about=tried | about(policy, sampler, pool, dropped))
    sampler.sync(policy.weights())
    return Parts(run, policy, sampler, reward, score, optimizer, pool, asked, checkpoint), step or 0


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
        logps=logps or cell.importance_cap > 0,
    )
    return collate(chosen, prompts, completions, cell.samples_per_prompt, policy.tokenizer)


def credit(deposits: Deposits, batch: Rollouts, cell: Cell) -> Float[Tensor, "N T"]:
    """Advantages of a batch, by the cell's options. Raises `ValueError` where deposits are not on its tokens."""
    deposits.check(batch)
    deposits = shaping.shaped(deposits, batch, cell)
    advantages = grpo.advantages(deposits, batch.group, cell.advantage_epsilon, cell.advantage_norm, cell.to_go)
    if cell.advantage_scale == "whitened":
        advantages = grpo.whitened(advantages, batch.completion_mask)
    return grpo.bounded(advantages, cell.advantage_cap)
