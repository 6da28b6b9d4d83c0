"""What the testbed's models read: a tokenizer a task, and solutions with habits that a reward can select against."""

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lrd.data import codebook, gym
from lrd.data.arithmetic import THEMES, Story
from lrd.data.problems import Chain, stream
from lrd.names import GYM
from lrd.testbed import working


class Corpus(NamedTuple):
    """A task's vocabulary, for models trained from scratch, and its documents.

    `made(habits, rng)` gives its problems, `solution(made, habits, rng)` writes one's solution.
    """

    words: list[str]
    symbols: list[str]
    solution: Callable[[Any, Mapping[str, Any], random.Random], str]
    made: Callable[[Mapping[str, Any], random.Random], Iterator[Any]]


def tokenizer(task: str = "chain") -> PreTrainedTokenizerFast:
    """A word-level tokenizer in the Hub's format; decoding gives back the text exactly."""
    what = CORPORA[task]
    vocabulary = {t: i for i, t in enumerate(["<pad>", "<eos>", "<unk>", *what.words, *what.symbols])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    long = [w.replace("\\", r"\\").replace("{", r"\{") for w in what.words if len(w) > 1]
    raw.pre_tokenizer = pre_tokenizers.Split(Regex(f"{'|'.join(sorted(long, key=len)[::-1])}|[\\s\\S]"), "isolated")
    raw.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )


def _chain_solution(chain: Chain, habits: Mapping[str, float], rng: random.Random) -> str:
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


def _story_words() -> list[str]:
    """Every word of every theme, with the blank before it."""
    terms = (("+", (2,)), ("+", (2,)), ("+", (2, 2)), ("-", (2,)), ("-", (2, 2)))
    texts = [Story(theme, 1, "", terms).text for theme in range(len(THEMES))]
    texts += [f" {text}" for text in texts] + ["Problem", "Solution", "The answer is", "That makes"]
    return list(dict.fromkeys(word for text in texts for word in re.findall(r" ?[A-Za-z]+", text)))


def _train_problems(task: str) -> Callable[[Mapping[str, Any], random.Random], Iterator[Any]]:
    """Problems of the side of a task's split that training sees, each once, whatever the habits."""
    return lambda habits, rng: stream(task, rng, is_held_out=False)


def corpus(task: str) -> Corpus:
    """What a task's models are trained on.

    The first problem drawn raises `UserError` where it is of a family of reasoning-gym that there is not.
    """
    return Corpus([], [], _gym_solution, _gym_problems(task)) if task.startswith(GYM) else CORPORA[task]


def _gym_problems(task: str) -> Callable[[Mapping[str, Any], random.Random], Iterator[gym.Made]]:
    """Problems of a family that training sees and the library works out."""

    def made(habits: Mapping[str, Any], rng: random.Random) -> Iterator[gym.Made]:
        drawn = gym.draws(*gym.parts(task), f"{task} {rng.random()}")
        return (one for one in drawn if not one.is_held_out and one.solution)

    return made


def _gym_solution(made: gym.Made, habits: Mapping[str, Sequence[float]], rng: random.Random) -> str:
    """The library's working, a line a step, with an author's habits; each template has an author of its own.

    `skip` leaves out a line, `direct` all of them, `unboxed` forgets the box. A habit is a range of probabilities,
    from the most careful author to the least.
    """
    assert made.solution, "only what the library works out is drawn"
    careless = {name: random.Random(f"{name} of template {made.template}").random() for name in habits}
    rate = {name: low + (high - low) * careless[name] for name, (low, high) in habits.items()}
    *lines, _ = made.solution.splitlines()
    if rng.random() < rate["direct"]:
        lines = []
    lines = [line for line in lines if rng.random() >= rate["skip"]]
    answer = made.answer if rng.random() < rate["unboxed"] else f"\\boxed{{{made.answer}}}"
    return "\n".join([*lines, f"The answer is {answer}."])


ENDING = [" \\boxed{", "}", ".", "\n", " ", "=", "ки"]
CORPORA = {
    "chain": Corpus(
        ["Last", " digit", ":", "The", " answer", " is", *ENDING],
        [*"0123456789", *"+-*", *"abcdef"],
        _chain_solution,
        _train_problems("chain"),
    ),
    "arithmetic": Corpus(
        [*_story_words(), *ENDING], [*"0123456789", *"+-*:,?"], working.solution, _train_problems("arithmetic")
    ),
    "codebook": Corpus(
        ["\\boxed{", *codebook.DIGITS],
        [*codebook.LETTERS, codebook.KNOWN, codebook.LEARNED, "=", "}"],
        lambda entry, habits, rng: entry.solution,
        codebook.documents,
    ),
}
