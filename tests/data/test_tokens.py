"""Which tokens begin, go on and end a sequence: one answer for samplers, steps, masks, solutions and evaluation."""

from types import SimpleNamespace

import pytest
import torch

from lrd import UserError
from lrd.data.codebook import Codebook
from lrd.data.problems import Problem
from lrd.data.tokens import beginnings, continuations, end_ids, solutions
from lrd.models.loading import load_tokenizer
from lrd.models.policy import Policy
from lrd.rewards.process import newline_ids, read, split_steps
from lrd.rollouts import Completion, collate
from lrd.runs.directory import Run
from lrd.runs.files import read_json
from lrd.sampling.torch import TorchSampler
from lrd.testbed.prm import label_steps
from lrd.train import evaluate, recall
from lrd.train.loop import sample, train

CPU = torch.device("cpu")
PROBLEM = Problem("0", "1a+1", "2", solution="a1+1=2\n \\boxed{2}")
SHORT = {"steps": 1, "eval_every": 1, "eval_problems": 4, "max_completion_tokens": 8}


@pytest.fixture
def two_ends(variant, tokenizer) -> str:
    """A checkpoint whose tokenizer ends with <eos>, and whose generation_config with `f` alone, an ordinary word."""
    return variant("two-ends", ends=[tokenizer.convert_tokens_to_ids("f")])


# --- ends


def test_the_ends_are_those_of_tokenizer_and_configurations(two_ends, tokenizer):
    eos, f, e = tokenizer.convert_tokens_to_ids(["<eos>", "f", "e"])
    words = load_tokenizer(two_ends, "student")
    assert end_ids(words) == {eos, f} and end_ids(tokenizer) == {eos}
    assert end_ids(tokenizer, SimpleNamespace(eos_token_id=e)) == {eos, e}
    assert end_ids(tokenizer, SimpleNamespace(eos_token_id=[e, f]), SimpleNamespace(eos_token_id=None)) == {eos, e, f}


@pytest.mark.parametrize("beside", [True, False])
def test_a_sampler_stops_at_the_tokenizers_end_too(beside, two_ends, tokenizer, make_cell):
    """Whether the tokenizer was loaded beside the model or not."""
    policy = Policy(make_cell(student=two_ends), CPU)
    sampler = TorchSampler(policy.base, policy.tokenizer if beside else tokenizer)
    sampler.sync(policy.weights())
    got = sampler.sample([[5, 6]] * 60, max_tokens=12, temperature=2.0, seed=0)
    ends = end_ids(policy.tokenizer)
    assert {c.ids[-1] for c in got if not c.truncated} == ends
    assert not any(ends & set(c.ids[:-1]) for c in got)


@pytest.mark.parametrize("text", ["a1+1=2\n \\boxed{2}", "a1+1=2\n \\boxed{2}\n", ""])
def test_a_text_closed_by_either_end_is_the_same(text, two_ends, make_cell):
    words = load_tokenizer(two_ends, "student")
    ids = continuations([text], words)[0]
    closed = [[*ids, end] for end in sorted(end_ids(words))]
    newlines = newline_ids(words)
    one, other = (split_steps(each, newlines, words) for each in closed)
    assert one == other
    assert one[0] == ([6, len(ids)] if text else [0])  # the end belongs to the last step
    assert "".join(one[1]) == text
    batch = collate([PROBLEM], [[5]], [Completion(each, None, False) for each in closed], 2, words)
    assert batch.texts == [text] * 2 and batch.completion_mask[0].equal(batch.completion_mask[1])
    rows = [evaluate.judge(PROBLEM, Completion(each, None, False), make_cell(), words) for each in closed]
    assert rows[0] == rows[1] and rows[0]["correct"] == bool(text)
    labels = [label_steps([PROBLEM], [[5]], [each], lambda starts: [[1] for _ in starts], words, 1) for each in closed]
    assert labels[0] == labels[1]


def test_ends_at_odds_are_said_and_recorded(two_ends, make_cell, tmp_path):
    run = Run(make_cell(student=two_ends, **SHORT), tmp_path)
    with pytest.warns(UserWarning, match="of its tokenizer, '<eos>', is none of those in generation_config.json"):
        list(train(run))
    about = read_json(run.path / "provenance.json")["run"]
    assert about["end_tokens"] == {"tokenizer": ["<eos>"], "config.json": ["<eos>"], "generation_config.json": ["f"]}


def test_a_tokenizer_without_an_end_takes_the_configurations(variant, reworded):
    words = load_tokenizer(variant("x", reworded(eos_token=None, pad_token=None), ends=[4]), "student")
    assert (words.eos_token_id, words.pad_token_id) == (1, 1)  # config.json's is <eos>, whose id is 1


def test_neither_padding_nor_end_is_refused(variant, reworded):
    bare = reworded(eos_token=None, pad_token=None)
    where = variant("bare", bare, eos_token_id=None, pad_token_id=None)
    with pytest.raises(UserError, match="student .* has no end token: neither its tokenizer nor its configuration"):
        load_tokenizer(where, "student")


# --- beginnings and continuations


@pytest.fixture
def adds_both(reworded):
    """A tokenizer that puts <s> before each text and <eos> behind it."""
    return reworded(("<s>",), "<s> $A <eos>", bos_token="<s>")


def test_what_begins_has_one_beginning_and_no_end(adds_both, tokenizer):
    plain, s = tokenizer("1a+1\n").input_ids, adds_both.bos_token_id
    assert adds_both("1a+1\n").input_ids == [s, *plain, 1]  # or this test would show nothing
    assert beginnings(["1a+1\n", "<s>1a+1\n"], adds_both) == [[s, *plain]] * 2
    assert beginnings(["1a+1\n"], tokenizer) == [plain]
    assert read("1a+1", ["a1+1=2\n"], adds_both) == [s, *tokenizer("1a+1 a1+1=2 ки").input_ids]


@pytest.mark.parametrize("template", ["{problem}\n", "<s>{problem}\n"])
def test_nothing_special_stands_inside_a_solution(template, adds_both, tokenizer, variant, make_cell):
    cell = make_cell(
        regime="supervised", advantage_norm="none", student=variant("bos", adds_both), prompt_template=template,
        prompts_per_step=1, samples_per_prompt=1, rank=None,
    )  # fmt: skip
    batch = sample(Policy(cell, CPU), TorchSampler, [PROBLEM], 1)
    assert batch.prompt_ids.tolist() == [[adds_both.bos_token_id, *tokenizer("1a+1\n").input_ids]]
    assert batch.completion_ids.tolist() == [[*tokenizer(PROBLEM.solution).input_ids, 1]]


def test_a_solution_that_brings_its_end_gets_no_second(adds_both, tokenizer):
    once = [*tokenizer("a1").input_ids, 1]
    assert solutions(["a1", "a1<eos>"], adds_both) == [once, once]


def test_bits_are_those_without_a_beginning_inside(reworded):
    """The values of a codebook, read where the model says them: behind the prompt, without a token between."""
    book = Codebook(4, 4, 0)
    entries = [Problem(e.text, e.text, e.answer, solution=e.solution) for e in book.entries]
    words = reworded(("<s>",), "<s> $A", task="codebook", bos_token="<s>")
    prompts = beginnings([f"{e.problem}=" for e in entries], words)
    seen = []

    class Model:
        device = CPU

        def __call__(self, input_ids, use_cache):
            seen.append(input_ids)
            return SimpleNamespace(logits=torch.zeros(*input_ids.shape, len(words)))

    recall.of_model(Model(), prompts, entries, words)
    want = [words(f"{e.problem}={e.solution}").input_ids for e in entries]
    assert torch.cat(seen).tolist() == want and all(ids.count(words.bos_token_id) == 1 for ids in want)
