"""Loading causal LMs and their tokenizers, and scoring tokens with them: what policy, teacher and PRM share."""

import contextlib
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from lrd import UserError, hub
from lrd.rollouts import Rollouts

logging.disable_progress_bar()  # loading a checkpoint is no news in a log or a notebook


CausalLM = Any
"""A transformers or PEFT model. Their attributes are made at run time, beyond what a type checker can follow."""


class TokenLogps(NamedTuple):
    """Of each completion token, in nats; 0 on padding."""

    logps: Float[Tensor, "N T"]  # log π(o_t | prompt, o_<t)
    entropy: Float[Tensor, "N T"]  # of the distribution that o_t was drawn from; carries no gradient


def device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_config(name: str, role: str) -> Any:
    """A model's configuration alone. Raises `UserError` where it cannot be had."""
    with _said_clearly(name, role):
        return AutoConfig.from_pretrained(hub.model(name, role, weights=False))


def load_tokenizer(name: str, role: str):
    """The tokenizer beside a model, with a padding token. Raises `UserError` where it cannot be had."""
    with _said_clearly(name, role):
        tokenizer = AutoTokenizer.from_pretrained(hub.model(name, role, weights=False))
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(name: str, role: str, dtype: str, to: torch.device) -> CausalLM:
    """A causal LM in evaluation mode, from safetensors only. Raises `UserError` where it cannot be had."""
    with _said_clearly(name, role):
        where = hub.model(name, role, weights=True)
        model: CausalLM = AutoModelForCausalLM.from_pretrained(where, dtype=getattr(torch, dtype), use_safetensors=True)
    return model.to(to).eval()


@contextlib.contextmanager
def _said_clearly(name: str, role: str):
    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise UserError(f"cannot load {role} {name!r}: {reason}") from None


def token_logps(model: CausalLM, rollouts: Rollouts, temperature: float = 1.0) -> TokenLogps:
    """Teacher-forced log-probabilities of the completions under `model`, at `temperature`."""
    ids = torch.cat([rollouts.prompt_ids, rollouts.completion_ids], 1)
    mask = torch.cat([rollouts.prompt_mask, rollouts.completion_mask], 1)
    width = rollouts.completion_ids.shape[1]
    logits = model(
        input_ids=ids,
        attention_mask=mask.long(),
        position_ids=(mask.cumsum(1) - 1).clamp(min=0),  # prompts are padded on the left
        logits_to_keep=width + 1,
        use_cache=False,
    ).logits[:, :-1]
    all_logps = torch.log_softmax(logits.float() / temperature, -1)
    logps = all_logps.gather(-1, rollouts.completion_ids[..., None])[..., 0]
    with torch.no_grad():
        entropy = -(all_logps.exp() * all_logps).sum(-1)
    valid = rollouts.completion_mask
    return TokenLogps(torch.where(valid, logps, 0.0), torch.where(valid, entropy, 0.0))
