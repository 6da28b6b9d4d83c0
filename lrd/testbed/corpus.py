"""Documents of the arithmetic chain, written with habits that a reward can select against, and their tokenizer."""

import random
from collections.abc import Mapping

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lrd.problems import Chain

WORDS = ["Last", " digit", ":", "The", " answer", " is", " \\boxed{", "}", ".", "\n", " ", "=", "ки"]
SYMBOLS = [*"0123456789", *"+-*", *"abcdef"]


def tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer in the Hub's format; decoding gives back the text exactly."""
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<eos>", "<unk>", *WORDS, *SYMBOLS])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words = "|".join(sorted((w.replace("\\", r"\\").replace("{", r"\{") for w in WORDS if len(w) > 1), key=len)[::-1])
    raw.pre_tokenizer = pre_tokenizers.Split(Regex(f"{words}|[\\s\\S]"), "isolated")
    raw.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )


def solution(chain: Chain, habits: Mapping[str, float], rng: random.Random) -> str:
    """One correct solution: a line an operation, a box around the answer, except where a habit has it otherwise."""
    lines, done, value = [], 0, chain.start
    operations, values = chain.operations, chain.values
    if rng.random() < habits["direct"]:
        done = len(operations)
    while done < len(operations):
        taken = 1 if rng.random() >= habits["skip"] else 2 if rng.random() >= habits["triple"] else 3
        taken = min(taken, len(operations) - done)
        terms = [f"{label}{op}{x}" for label, (op, x) in zip("abcdef", operations)][done : done + taken]
        lines.append(f"{terms[0][0]}{value}{terms[0][1:]}{''.join(terms[1:])}={values[done + taken - 1]}")
        done += taken
        value = values[done - 1]
        while rng.random() < habits["restate"]:
            lines.append(f"={value}")
    answer = f"{values[-1]}" if rng.random() < habits["unboxed"] else f"\\boxed{{{values[-1]}}}"
    return "\n".join([*lines, f"The answer is {answer}."])
