"""Causal LMs and their tokenizers from checkpoints; what cannot be used is refused with a reason."""

import contextlib
import importlib.util
import inspect
from typing import Any

import torch
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
from lrd.data import hub
from lrd.data.tokens import end_ids, ends_of

logging.disable_progress_bar()  # loading a checkpoint is no news in a log or a notebook

RECURRENT = {"conv", "linear_attention", "hybrid", "hybrid_sliding"}  # layers with a state of another kind
ALIBI = ("bloom", "mpt")  # without positions: they read distances from the mask

CausalLM = Any
"""A transformers or PEFT model. Their attributes are made at run time, beyond what a type checker can follow."""


def device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_config(name: str, role: str) -> Any:
    """A causal LM's configuration alone. Raises `UserError` where it cannot be had, or is of another kind of model."""
    with as_user_error(name, role):
        where = hub.model_folder(name, role, weights=False)
        config = AutoConfig.from_pretrained(where, trust_remote_code=False)
    if objection := _objection(config):
        raise UserError(f"{role} {name!r} {objection}")
    if (where / "adapter_config.json").is_file():
        raise UserError(f"{role} {name!r} has an adapter beside its weights; merge it into them (merge_and_unload)")
    return config


def _objection(config: Any) -> str | None:
    """Why a model of this configuration cannot be used, as the end of a sentence; None where it can."""
    kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    masked = MODEL_FOR_MASKED_LM_MAPPING.get(type(config), None)
    model_type = config.model_type
    others = [arch for arch in config.architectures or () if "For" in arch and not arch.endswith(("LM", "Generation"))]
    if kind is None or masked or config.is_encoder_decoder or others:
        return f"({', '.join(others) or model_type}) is no causal language model"
    if getattr(config, "quantization_config", None):
        return "has quantized weights; choose a checkpoint with plain ones"
    text = config.get_text_config()
    if getattr(kind, "_is_stateful", False) or RECURRENT & set(getattr(text, "layer_types", None) or ()):
        return f"({model_type}) keeps a recurrent state; choose a model whose layers all attend to a key-value cache"
    arguments = inspect.signature(kind.forward).parameters
    if "past_key_values" not in arguments or not ("position_ids" in arguments or model_type in ALIBI):
        return (
            f"({model_type}) does not take positions and a key-value cache as decoders of today do; choose another "
            f"model"
        )
    if getattr(text, "final_logit_softcapping", None):  # too little at small logits for `_check_head` to see
        return f"({model_type}) does more to its logits than multiply by a head"
    return None


def load_tokenizer(name: str, role: str):
    """The tokenizer beside a model, with a padding and an end token. Raises `UserError` where it cannot be had.

    Its `ends` are the end tokens that the model's own files name, see `tokens.end_ids`.
    """
    config = load_config(name, role).get_text_config()
    with as_user_error(name, role):
        where = hub.model_folder(name, role, weights=False)
        tokenizer = AutoTokenizer.from_pretrained(where, trust_remote_code=False)
        configs = {"config.json": config}
        if (where / "generation_config.json").is_file():
            configs["generation_config.json"] = GenerationConfig.from_pretrained(where)
    files = sorted({"tokenizer.model", *tokenizer.vocab_files_names.values()})
    if not any((where / file).is_file() for file in files):  # transformers makes an empty one up
        raise UserError(f"{role} {name!r} has no tokenizer: none of the files {', '.join(files)}")
    tokenizer.ends = {}
    for file, about in configs.items():
        if odd := [i for i in ends_of(about) if type(i) is not int]:
            raise UserError(f"{role} {name!r}: eos_token_id in {file} has {odd[0]!r} in it; it has to be token numbers")
        tokenizer.ends[file] = [i for i in ends_of(about) if 0 <= i < config.vocab_size]  # some write -1 for none
    if tokenizer.eos_token_id is None or tokenizer.eos_token_id >= config.vocab_size:
        tokenizer.eos_token = None
        if not (usable := [i for i in end_ids(tokenizer) if i < len(tokenizer)]):
            raise UserError(
                f"{role} {name!r} has no end token: neither its tokenizer nor its configuration names one as eos_token "
                f"that the model has weights for"
            )
        tokenizer.eos_token_id = min(usable)
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id >= config.vocab_size:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def skeleton(name: str, role: str) -> CausalLM:
    """A causal LM without weights or memory for them. Raises `UserError` where its configuration makes none."""
    config = load_config(name, role)
    with as_user_error(name, role), torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def load_model(name: str, role: str, dtype: str, to: torch.device) -> CausalLM:
    """A causal LM in evaluation mode, from safetensors only. Raises `UserError` where it cannot be had."""
    with as_user_error(name, role):
        how: dict[str, Any] = {"dtype": getattr(torch, dtype), "use_safetensors": True, "output_loading_info": True}
        where = hub.model_folder(name, role, weights=True)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            where, ignore_mismatched_sizes=True, trust_remote_code=False, **how
        )
    model, report = loaded
    if lacking := sorted(report["missing_keys"] | {key for key, *_ in report["mismatched_keys"]}):  # drawn at random
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
    """Logits have to be the head's product with the decoder's output, as `logps` takes them: some models scale."""
    with as_user_error(name, role):
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
def as_user_error(name: str, role: str):
    """Turns whatever transformers makes of files and models that it does not expect into a `UserError` of one line."""
    try:
        yield
    except (UserError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        what = "" if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: "
        raise UserError(f"cannot load {role} {name!r}: {what}{' '.join(str(error).split())[:200]}") from error
