"""Between text and tokens: what begins a sequence, what goes on from it, what ends it, and the text that it is."""

from collections.abc import Iterable, Sequence
from typing import Any

from lrd import UserError
from lrd.cell import CHAT, Cell


def end_ids(tokenizer, *configs: Any) -> frozenset[int]:
    """Every token that ends a completion: the tokenizer's end token, and those of a model's configurations.

    A tokenizer that `models.load_tokenizer` gives knows those of the checkpoint that it lies beside, as `ends`.
    """
    named = [tokenizer.eos_token_id, *(i for ids in getattr(tokenizer, "ends", {}).values() for i in ids)]
    return frozenset(i for i in named if i is not None).union(*map(ends_of, configs))


def ends_of(config: Any) -> list[Any]:
    """The end tokens of a configuration, which has one, several or none."""
    ids = getattr(config, "eos_token_id", None)
    return [] if ids is None else list(ids) if isinstance(ids, list | tuple) else [ids]


def prompt(problem: str, cell: Cell, tokenizer) -> str:
    """The text that a completion goes on from, as `prompt_texts` writes it."""
    return prompt_texts([problem], cell, tokenizer)[0]


def prompt_texts(problems: Iterable[str], cell: Cell, tokenizer) -> list[str]:
    """The texts that completions go on from: the cell's template, or the tokenizer's own for a chat.

    Substituted, not formatted: LaTeX has braces. Raises `UserError` where a tokenizer has no template, or it refuses.
    """
    if cell.prompt_template != CHAT:
        return [cell.prompt_template.replace("{problem}", problem) for problem in problems]
    system = [{"role": "system", "content": cell.system_prompt}] if cell.system_prompt else []
    chats = [[*system, {"role": "user", "content": problem}] for problem in problems]
    try:
        return [tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) for chat in chats]
    except Exception as error:  # whatever a template raises, which is a program
        why = " ".join(str(error).split())[:200] if tokenizer.chat_template else "its tokenizer has no chat template"
        raise UserError(f"student {cell.student!r} cannot be asked by prompt_template {CHAT!r}: {why}") from None


def prompts(problems: Iterable[str], cell: Cell, tokenizer) -> list[list[int]]:
    """Token ids of prompts. A chat template writes itself what begins a sequence."""
    texts = prompt_texts(problems, cell, tokenizer)
    return (continuations if cell.prompt_template == CHAT else beginnings)(texts, tokenizer)


def beginnings(texts: Iterable[str], tokenizer) -> list[list[int]]:
    """Token ids of texts that begin a sequence, such as prompts.

    What the tokenizer puts before a text by itself (BOS) stands there once, also where the text brings its own. What it
    puts behind a text is left out, for the sequence goes on.
    """
    texts = list(texts)
    whole = tokenizer(texts).input_ids if texts else []
    begun = []
    for ids, plain in zip(whole, continuations(texts, tokenizer), strict=True):
        n = len(plain)
        before = next((ids[:i] for i in range(len(ids) - n + 1) if ids[i : i + n] == plain), [])
        begun.append(plain if plain[: len(before)] == before else before + plain)
    return begun


def continuations(texts: Iterable[str], tokenizer) -> list[list[int]]:
    """Token ids of texts that go on from a prompt: the tokenizer puts nothing before or behind them."""
    texts = list(texts)
    return tokenizer(texts, add_special_tokens=False).input_ids if texts else []


def solutions(texts: Iterable[str], tokenizer) -> list[list[int]]:
    """Token ids of whole completions, each closed by the tokenizer's end token, once."""
    ends = end_ids(tokenizer)
    return [[*unended(ids, ends), tokenizer.eos_token_id] for ids in continuations(texts, tokenizer)]


def unended(ids: Sequence[int], ends: Iterable[int]) -> Sequence[int]:
    """A completion without the token that ends it."""
    return ids[:-1] if len(ids) and ids[-1] in ends else ids


def texts(completions: Iterable[Sequence[int]], tokenizer) -> list[str]:
    """Completions as text, without the token that ends them and without special tokens."""
    ends = end_ids(tokenizer)
    return [tokenizer.decode(unended(ids, ends), skip_special_tokens=True) for ids in completions]
