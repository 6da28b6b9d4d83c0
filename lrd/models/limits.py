"""What a model can read, checked before its weights are read: lengths, tokens, and that there are weights."""

import json
from collections.abc import Iterable
from typing import Any

from safetensors import safe_open

from lrd import UserError
from lrd.data import hub
from lrd.data.tokens import beginnings, continuations
from lrd.models.loading import as_user_error, load_config
from lrd.names import on_hub

SPECIAL = 8  # tokens at most that a tokenizer puts around a text
AT_A_TIME = 256  # texts that are tokenized
FEW = 32  # characters; a longer text has a token


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
        begun, rest = zip(*part)
        pairs = zip(beginnings(begun, tokenizer), continuations(rest, tokenizer), strict=True)
        longest = max(len(before) + len(after) for before, after in pairs)
        if longest + more > most:
            raise UserError(
                f"{role} {name!r} has {most} positions, too few for a problem of {source!r} with {longest} tokens and "
                f"{more} that may follow; choose another model, shorter problems or a smaller max_completion_tokens"
            )


def check_tokens(name: str, role: str, starts: Iterable[str], tokenizer, source: str) -> None:
    """Raises `UserError` where a text that begins a sequence has no token, or one that a model has no weights for."""
    words = load_config(name, role).get_text_config().vocab_size
    has_more = max(tokenizer.get_vocab().values()) >= words
    for ids in beginnings((text for text in starts if has_more or len(text) < FEW), tokenizer):
        if not ids:
            raise UserError(f"a prompt of {source!r} has no token for {role} {name!r}; write some text into it")
        if max(ids) >= words:
            raise UserError(
                f"{role} {name!r} has weights for {words} tokens, and a problem of {source!r} has token {max(ids)} of "
                f"its tokenizer: they do not belong together"
            )


def check_weights(name: str, role: str) -> None:
    """Raises `UserError` where a directory has no weights or broken ones; those on the Hub show when they are read."""
    if on_hub(name):
        return
    where = hub.model_folder(name, role, weights=False)
    with as_user_error(name, role):
        index = where / "model.safetensors.index.json"
        files = {"model.safetensors"}
        if not (where / "model.safetensors").exists() and index.is_file():
            files = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        if not files or not any(where.glob("*.safetensors")):
            raise UserError(f"cannot load {role} {name!r}: it has no weights, *.safetensors")
        for file in sorted(files):
            with safe_open(where / file, "pt"):  # reads where they lie, and whether all are there
                pass
