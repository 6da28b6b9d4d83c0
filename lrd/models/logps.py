"""Log-probabilities of completions: what learner, reference and teacher share.

No logits of a whole batch are ever in memory: rows go through the model in passes, and logits are made in slices.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from lrd.models.loading import CausalLM
from lrd.rollouts import Rollouts, by_length

LOGITS_AT_ONCE = 2**26  # 0.25 GiB in fp32


class TokenLogps(NamedTuple):
    """What a model says of each completion token, in nats; 0 on padding."""

    logps: Float[Tensor, "N T"]  # log π(o_t | prompt, o_<t)
    entropy: Float[Tensor, "N T"]  # of the distribution that o_t was drawn from; carries no gradient


class Recompute(NamedTuple):
    """What is kept for the gradient, and what is computed again in its place."""

    rows: int = 0  # at a time go through the model, and again for the gradient; 0: all are kept
    layers: bool = False  # each layer keeps its input alone and runs again for the gradient


KEEP = Recompute()
State = Callable[[], AbstractContextManager]


def token_logps(
    model: CausalLM,
    rollouts: Rollouts,
    temperature: float = 1.0,
    weights: Mapping[str, Tensor] | None = None,
    recompute: Recompute = KEEP,
    state: State = nullcontext,
) -> TokenLogps:
    """Teacher-forced log-probabilities of the completions under `model`, at `temperature`.

    `weights` take the place of the parameters of these names, and take their gradient. Rows of like length go through
    the model together; no row's value depends on the others, and no logits of the whole batch are ever in memory. The
    model runs within `state()`, which holds again where it runs again for the gradient, whenever that is.
    """
    scorer = _Scorer(model, recompute.layers, state)
    run = functools.partial(functional_call, scorer)
    renamed = {f"model.{name}": weight for name, weight in (weights or {}).items()}
    logps = torch.zeros(rollouts.completion_mask.shape, device=model.device)
    entropy = torch.zeros_like(logps)
    ids, starts = _unpadded(rollouts)
    sizes = starts + rollouts.lengths
    passes = map(torch.tensor, by_length(sizes.tolist()))
    for rows in (few for whole in passes for few in whole.split(recompute.rows or len(whole))):
        row, column = rollouts.completion_mask[rows].nonzero(as_tuple=True)  # of the pass; of its completions
        before = starts[rows][row] + column - 1  # the position that predicts a token
        targets = rollouts.completion_ids[rows[row], column]
        inputs = (ids[rows, : int(sizes[rows].max())], row, before, targets, rows[row], column)
        read, row, before, targets, where, column = (x.to(model.device) for x in inputs)
        arguments = renamed, (read, (row, before), targets, temperature)
        scored: Any = _again(run, *arguments) if recompute.rows else run(*arguments)
        logps = logps.index_put((where, column), scored.logps)
        entropy[where, column] = scored.entropy
    return TokenLogps(logps, entropy)


def _unpadded(rollouts: Rollouts) -> tuple[Int[Tensor, "N L"], Int[Tensor, " N"]]:
    """Prompt and completion of each row side by side from the first column on, and where its completion starts.

    What follows them is padding that no valid token attends to, so that causal attention needs no mask.
    """
    ids = torch.cat([rollouts.prompt_ids, rollouts.completion_ids], 1)
    starts = rollouts.prompt_mask.sum(1)
    shift = rollouts.prompt_ids.shape[1] - starts
    columns = torch.arange(ids.shape[1], device=ids.device) + shift[:, None]
    return ids.gather(1, columns.clamp(max=ids.shape[1] - 1)), starts


class _Scorer(nn.Module):
    """A causal LM that gives log-probabilities of chosen tokens in place of logits."""

    def __init__(self, model: CausalLM, by_layer: bool, state: State):
        super().__init__()
        self.model, self.by_layer, self.state = model, by_layer, state

    def forward(self, ids: Tensor, predicts: tuple[Tensor, Tensor], targets: Tensor, temperature: float) -> TokenLogps:
        model: CausalLM = self.model
        with self.state(), _layers_again(model, self.state) if self.by_layer else nullcontext():
            hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state[predicts]
            head = model.get_output_embeddings()
            return target_logps(hidden, head.weight, head.bias, targets, temperature)


_again = functools.partial(checkpoint, use_reentrant=False, preserve_rng_state=False)  # nothing is drawn


class _Layer(nn.Module):
    """A decoder layer as it runs, in a state and with weights of that moment, while another stands in its place."""

    def __init__(self, layer: nn.Module, state: State):
        super().__init__()
        self.layer, self.run, self.state = layer, layer.forward, state

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with self.state():
            return self.run(*args, **kwargs)


@contextlib.contextmanager
def _layers_again(model: CausalLM, state: State) -> Iterator[None]:
    """Decoder layers keep their inputs alone, and run again for the gradient with the weights of the first time."""

    def forward(layer: _Layer, *args: Any, **kwargs: Any) -> Any:
        return _again(functional_call, layer, dict(layer.named_parameters()), args, kwargs)

    layers = [_Layer(m, state) for m in model.get_decoder().modules() if isinstance(m, GradientCheckpointingLayer)]
    for layer in layers:
        layer.layer.forward = functools.partial(forward, layer)
    try:
        yield
    finally:
        for layer in layers:
            layer.layer.forward = layer.run


def target_logps(
    hidden: Float[Tensor, "M H"],
    weight: Float[Tensor, "V H"],
    bias: Float[Tensor, " V"] | None,
    targets: Int[Tensor, " M"],
    temperature: float,
) -> TokenLogps:
    """Log-probability of each target and entropy of its distribution, from the hidden states that predict them.

    Slice by slice, so that at most `LOGITS_AT_ONCE` logits are in memory; the gradient makes them again.
    """
    return TokenLogps(*_TargetLogps.apply(hidden, weight, bias, targets, temperature))


class _TargetLogps(torch.autograd.Function):
    """∂ log p_t / ∂ z_v = (1[v = t] − p_v) / temperature; the entropy has no gradient."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, targets, temperature):
        ctx.save_for_backward(hidden, weight, bias, targets)
        ctx.temperature = temperature
        logps, entropy = (torch.empty(len(hidden), device=hidden.device) for _ in range(2))
        for rows in _slices(len(hidden), len(weight)):
            all_logps = _log_softmax(hidden[rows], weight, bias, temperature)
            logps[rows] = all_logps.gather(-1, targets[rows, None])[:, 0]
            entropy[rows] = -(all_logps.exp() * all_logps).sum(-1)
        ctx.mark_non_differentiable(entropy)
        return logps, entropy

    @staticmethod
    def backward(ctx, *gradients):
        hidden, weight, bias, targets = ctx.saved_tensors
        grad, (wants_hidden, wants_weight, wants_bias) = gradients[0], ctx.needs_input_grad[:3]
        grad_hidden = torch.empty_like(hidden) if wants_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if wants_weight else None
        grad_bias = torch.zeros_like(bias, dtype=torch.float32) if wants_bias else None
        for rows in _slices(len(hidden), len(weight)):
            scale = grad[rows, None] / ctx.temperature
            grad_logits = _log_softmax(hidden[rows], weight, bias, ctx.temperature).exp_().mul_(-scale)
            grad_logits = grad_logits.scatter_add_(1, targets[rows, None], scale).to(hidden.dtype)
            if grad_hidden is not None:
                grad_hidden[rows] = grad_logits @ weight
            if grad_weight is not None:
                grad_weight += grad_logits.t() @ hidden[rows]
            if grad_bias is not None:
                grad_bias += grad_logits.sum(0)
        cast = (None if g is None else g.to(weight.dtype) for g in (grad_weight, grad_bias))
        return grad_hidden, *cast, None, None


def _slices(rows: int, vocabulary: int) -> list[slice]:
    size = max(1, LOGITS_AT_ONCE // vocabulary)
    return [slice(start, start + size) for start in range(0, rows, size)]


def _log_softmax(hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: float) -> Tensor:
    logits = nn.functional.linear(hidden, weight, bias)
    logits = logits if temperature == 1 else logits.float() / temperature
    return torch.log_softmax(logits, -1, dtype=torch.float32)
