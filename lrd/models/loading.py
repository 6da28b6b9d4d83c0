"""Loading causal LMs and their tokenizers, and scoring tokens with them: what policy, teacher and PRM share."""

import contextlib
import importlib.util
import inspect
import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from safetensors import safe_open
from torch import Tensor, nn
from torch.func import functional_call
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
)
from transformers.utils import logging

from lrd import UserError
from lrd.cell import on_hub
from lrd.data import hub
from lrd.data.tokens import beginnings, continuations, end_ids, ends_of
from lrd.rollouts import Rollouts, by_length

logging.disable_progress_bar()  # loading a checkpoint is no news in a log or a notebook


LOGITS_AT_ONCE = 2**28  # 1 GiB in fp32
SPECIAL = 8  # tokens at most that a tokenizer puts around a text
RECURRENT = {"conv", "linear_attention", "hybrid", "hybrid_sliding"}  # layers with a state of another kind
ALIBI = ("bloom", "mpt")  # without positions: they read distances from the mask
AT_A_TIME = 256  # texts that are tokenized
FEW = 32  # characters; a longer text has a token

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
    """A causal LM's configuration alone. Raises `UserError` where it cannot be had, or is of another kind of model."""
    with _said_clearly(name, role):
        where = hub.model_folder(name, role, weights=False)
        config = AutoConfig.from_pretrained(where, trust_remote_code=False)
    kind, masked = (of.get(type(config), None) for of in (MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING))
    takes = inspect.signature(getattr(kind, "forward", lambda: None)).parameters
    made = [arch for arch in config.architectures or () if "For" in arch and not arch.endswith(("LM", "Generation"))]
    if kind is None or masked or config.is_encoder_decoder or made:
        raise UserError(f"{role} {name!r} ({', '.join(made) or config.model_type}) is no causal language model")
    if getattr(config, "quantization_config", None):
        raise UserError(f"{role} {name!r} has quantized weights; choose a checkpoint with plain ones")
    if (where / "adapter_config.json").is_file():
        raise UserError(f"{role} {name!r} has an adapter beside its weights; merge it into them (merge_and_unload)")
    text = config.get_text_config()
    if getattr(kind, "_is_stateful", False) or RECURRENT & set(getattr(text, "layer_types", None) or ()):
        raise UserError(
            f"{role} {name!r} ({config.model_type}) keeps a recurrent state; choose a model whose layers all attend to "
            f"a key-value cache"
        )
    if "past_key_values" not in takes or not ("position_ids" in takes or config.model_type in ALIBI):
        raise UserError(
            f"{role} {name!r} ({config.model_type}) does not take positions and a key-value cache as decoders of today "
            f"do; choose another model"
        )
    if getattr(text, "final_logit_softcapping", None):  # too little at small logits for `_check_head` to see
        raise UserError(f"{role} {name!r} ({config.model_type}) does more to its logits than multiply by a head")
    return config


def load_tokenizer(name: str, role: str):
    """The tokenizer beside a model, with a padding and an end token. Raises `UserError` where it cannot be had.

    Its `ends` are the end tokens that the model's own files name, see `tokens.end_ids`.
    """
    config = load_config(name, role).get_text_config()
    with _said_clearly(name, role):
        where = hub.model_folder(name, role, weights=False)
        tokenizer = AutoTokenizer.from_pretrained(where, trust_remote_code=False)
        named = {"config.json": config}
        if (where / "generation_config.json").is_file():
            named["generation_config.json"] = GenerationConfig.from_pretrained(where)
    files = sorted({"tokenizer.model", *tokenizer.vocab_files_names.values()})
    if not any((where / file).is_file() for file in files):  # transformers makes an empty one up
        raise UserError(f"{role} {name!r} has no tokenizer: none of the files {', '.join(files)}")
    tokenizer.ends = {}
    for file, about in named.items():
        if odd := [i for i in ends_of(about) if type(i) is not int]:
            raise UserError(f"{role} {name!r}: eos_token_id in {file} has {odd[0]!r} in it; it has to be token numbers")
        tokenizer.ends[file] = [i for i in ends_of(about) if 0 <= i < config.vocab_size]  # some write -1 for none
    if tokenizer.eos_token_id is None or tokenizer.eos_token_id >= config.vocab_size:
        tokenizer.eos_token = None
        if not (there := sorted(i for i in end_ids(tokenizer) if i < len(tokenizer))):
            raise UserError(
                f"{role} {name!r} has no end token: neither its tokenizer nor its configuration names one as eos_token "
                f"that the model has weights for"
            )
        tokenizer.eos_token_id = there[0]
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id >= config.vocab_size:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def positions(config: Any) -> int | None:
    """The most tokens that a model was made to read, its rotary scaling included; None where it says nothing.

    Where frequencies change with the length of what is read (dynamic, longrope), the most that leaves them alone: keys
    of a cache and a text read at once would part beyond it.
    """
    config = config.get_text_config()
    most, rotary = getattr(config, "max_position_embeddings", None), getattr(config, "rope_parameters", None) or {}
    original = rotary.get("original_max_position_embeddings") or most
    if most and rotary.get("rope_type") in ("linear", "yarn"):
        most = max(most, int(rotary["factor"] * original))
    return min(most, original) if most and varies(config) else most


def varies(config: Any) -> bool:
    """Whether a model's rotary frequencies change with the length of what it reads."""
    return (getattr(config, "rope_parameters", None) or {}).get("rope_type") in ("dynamic", "longrope")


def check_positions(name: str, role: str, rows: Iterable[tuple[str, str]], more: int, tokenizer, source: str) -> None:
    """Raises `UserError` where a row of `source`, a beginning and what goes on from it, is too long for a model.

    `more` tokens follow it.
    """
    if (most := positions(load_config(name, role))) is None:
        return
    # A token has a byte at least: short rows need not be tokenized, and the first to be are those of most bytes.
    sizes = {row: len("".join(row).encode(errors="replace")) for row in rows}
    long = sorted((row for row in sizes if sizes[row] + SPECIAL + more > most), key=sizes.__getitem__)[::-1]
    for part in (long[i : i + AT_A_TIME] for i in range(0, len(long), AT_A_TIME)):
        starts, rest = (encode(texts, tokenizer) for encode, texts in zip((beginnings, continuations), zip(*part)))
        longest = max(len(before) + len(after) for before, after in zip(starts, rest, strict=True))
        if longest + more > most:
            raise UserError(
                f"{role} {name!r} has {most} positions, too few for a problem of {source!r} with {longest} tokens and "
                f"{more} that may follow; choose another model, shorter problems or a smaller max_completion_tokens"
            )


def check_tokens(name: str, role: str, beginnings_of: Iterable[str], tokenizer, source: str) -> None:
    """Raises `UserError` where a text that begins a sequence has no token, or one that a model has no weights for."""
    words, every = load_config(name, role).get_text_config().vocab_size, list(beginnings_of)
    beyond = max(tokenizer.get_vocab().values()) >= words
    for ids in beginnings((text for text in every if beyond or len(text) < FEW), tokenizer):
        if not ids:
            raise UserError(f"a prompt of {source!r} has no token for {role} {name!r}; write some text into it")
        if max(ids) >= words:
            raise UserError(
                f"{role} {name!r} has weights for {words} tokens, and a problem of {source!r} has token {max(ids)} of "
                f"its tokenizer: they do not belong together"
            )


def skeleton(name: str, role: str) -> CausalLM:
    """A causal LM without weights or memory for them. Raises `UserError` where its configuration makes none."""
    config = load_config(name, role)
    with _said_clearly(name, role), torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def check_weights(name: str, role: str) -> None:
    """Raises `UserError` where a directory has no weights or broken ones; those on the Hub show when they are read."""
    if on_hub(name):
        return
    where = hub.model_folder(name, role, weights=False)
    with _said_clearly(name, role):
        index = where / "model.safetensors.index.json"
        files = {"model.safetensors"}
        if not (where / "model.safetensors").exists() and index.is_file():
            files = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        if not files or not any(where.glob("*.safetensors")):
            raise UserError(f"cannot load {role} {name!r}: it has no weights, *.safetensors")
        for file in sorted(files):
            with safe_open(where / file, "pt"):  # reads where they lie, and whether all are there
                pass


def load_model(name: str, role: str, dtype: str, to: torch.device) -> CausalLM:
    """A causal LM in evaluation mode, from safetensors only. Raises `UserError` where it cannot be had."""
    with _said_clearly(name, role):
        how: dict[str, Any] = {"dtype": getattr(torch, dtype), "use_safetensors": True, "output_loading_info": True}
        where = hub.model_folder(name, role, weights=True)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            where, ignore_mismatched_sizes=True, trust_remote_code=False, **how
        )
    model, found = loaded
    if lacking := sorted(found["missing_keys"] | {key for key, *_ in found["mismatched_keys"]}):  # drawn at random now
        raise UserError(
            f"cannot load {role} {name!r}: its files lack weights of its configuration or have others, such as "
            f"{lacking[0]!r}"
        )
    model = model.to(to).eval()
    _check_head(model, name, role)
    if to.type == "cuda":
        fuse_kernels(model)
    return model


@torch.no_grad()
def _check_head(model: CausalLM, name: str, role: str) -> None:
    """Logits have to be the head's product with the decoder's output, as `_Scorer` takes them: some models scale."""
    with _said_clearly(name, role):
        ids = torch.tensor([[0, 1]], device=model.device)
        head, logits = model.get_output_embeddings(), model(ids).logits
        if not logits.isfinite().all():
            raise UserError(f"{role} {name!r} gives logits that are not finite; its weights are broken")
        if head is not None and torch.allclose(logits, head(model.get_decoder()(ids).last_hidden_state), rtol=1e-2):
            return
    raise UserError(f"{role} {name!r} ({model.config.model_type}) does more to its logits than multiply by a head")


def fuse_kernels(model: CausalLM) -> None:
    """Liger's RMSNorm, rotary embedding and SwiGLU where it is installed and knows the architecture."""
    if importlib.util.find_spec("liger_kernel"):
        from liger_kernel.transformers import (  # pyright: ignore[reportMissingImports] (of the gpu extra)
            _apply_liger_kernel_to_instance,
        )

        _apply_liger_kernel_to_instance(model=model, cross_entropy=False, fused_linear_cross_entropy=False)


@contextlib.contextmanager
def _said_clearly(name: str, role: str):
    try:
        yield
    except (UserError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever transformers makes of files and models that it does not expect
        what = "" if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: "
        raise UserError(f"cannot load {role} {name!r}: {what}{' '.join(str(error).split())[:200]}") from error


def token_logps(
    model: CausalLM, rollouts: Rollouts, temperature: float = 1.0, weights: Mapping[str, Tensor] | None = None
) -> TokenLogps:
    """Teacher-forced log-probabilities of the completions under `model`, at `temperature`.

    `weights` take the place of the parameters of these names, and take their gradient. Rows of like length go through
    the model together; no row's value depends on the others, and no logits of the whole batch are ever in memory.
    """
    scorer = _Scorer(model)
    renamed = {f"model.{name}": weight for name, weight in (weights or {}).items()}
    ids, starts = _unpadded(rollouts)
    lengths = rollouts.lengths
    logps = torch.zeros(rollouts.completion_mask.shape, device=model.device)
    entropy = torch.zeros_like(logps)
    for rows in by_length((starts + lengths).tolist()):
        width = int((starts + lengths)[rows].max())
        which, at = rollouts.completion_mask[rows].nonzero(as_tuple=True)  # of the pass's rows; of their completions
        rows = torch.tensor(rows)
        predicts = which, (starts[rows][which] + at - 1)  # the position before a token predicts it
        targets = rollouts.completion_ids[rows[which], at]
        read = (ids[rows, :width], *predicts, targets, rows[which], at)
        of_rows, which, before, targets, where, at = (x.to(model.device) for x in read)
        of_pass = functional_call(scorer, renamed, (of_rows, (which, before), targets, temperature))
        logps = logps.index_put((where, at), of_pass.logps)
        entropy[where, at] = of_pass.entropy
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

    def __init__(self, model: CausalLM):
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, predicts: tuple[Tensor, Tensor], targets: Tensor, temperature: float) -> TokenLogps:
        model: CausalLM = self.model
        hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state[predicts]
        head = model.get_output_embeddings()
        return of_tokens(hidden, head.weight, head.bias, targets, temperature)


def of_tokens(
    hidden: Float[Tensor, "M H"],
    weight: Float[Tensor, "V H"],
    bias: Float[Tensor, " V"] | None,
    targets: Int[Tensor, " M"],
    temperature: float,
) -> TokenLogps:
    """Log-probability of each target and entropy of its distribution, from the hidden states that predict them.

    Slice by slice, so that at most `LOGITS_AT_ONCE` logits are in memory; the gradient makes them again.
    """
    return TokenLogps(*_OfTokens.apply(hidden, weight, bias, targets, temperature))


class _OfTokens(torch.autograd.Function):
    """∂ log p_t / ∂ z_v = (1[v = t] − p_v) / temperature; the entropy has no gradient."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, targets, temperature):
        ctx.save_for_backward(hidden, weight, bias, targets)
        ctx.temperature = temperature
        logps, entropy = (torch.empty(len(hidden), device=hidden.device) for _ in range(2))
        for rows in _slices(len(hidden), len(weight)):
            of_all = _log_softmax(hidden[rows], weight, bias, temperature)
            logps[rows] = of_all.gather(-1, targets[rows, None])[:, 0]
            entropy[rows] = -(of_all.exp() * of_all).sum(-1)
        ctx.mark_non_differentiable(entropy)
        return logps, entropy

    @staticmethod
    def backward(ctx, *gradients):
        hidden, weight, bias, targets = ctx.saved_tensors
        of_logps, (wants_hidden, wants_weight, wants_bias) = gradients[0], ctx.needs_input_grad[:3]
        to_hidden = torch.empty_like(hidden) if wants_hidden else None
        to_weight = torch.zeros_like(weight, dtype=torch.float32) if wants_weight else None
        to_bias = torch.zeros_like(bias, dtype=torch.float32) if wants_bias else None
        for rows in _slices(len(hidden), len(weight)):
            scale = of_logps[rows, None] / ctx.temperature
            to_logits = _log_softmax(hidden[rows], weight, bias, ctx.temperature).exp_().mul_(-scale)
            to_logits = to_logits.scatter_add_(1, targets[rows, None], scale).to(hidden.dtype)
            if to_hidden is not None:
                to_hidden[rows] = to_logits @ weight
            if to_weight is not None:
                to_weight += to_logits.t() @ hidden[rows]
            if to_bias is not None:
                to_bias += to_logits.sum(0)
        cast = (None if g is None else g.to(weight.dtype) for g in (to_weight, to_bias))
        return to_hidden, *cast, None, None


def _slices(rows: int, vocabulary: int) -> list[slice]:
    size = max(1, LOGITS_AT_ONCE // vocabulary)
    return [slice(start, start + size) for start in range(0, rows, size)]


def _log_softmax(hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: float) -> Tensor:
    logits = nn.functional.linear(hidden, weight, bias)
    logits = logits if temperature == 1 else logits.float() / temperature
    return torch.log_softmax(logits, -1, dtype=torch.float32)
