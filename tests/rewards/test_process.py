"""The process reward: steps, their tags, and a PRM's scores against Math-Shepherd's own conventions."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import sentencepiece
import torch
from fakes import deposited
from hypothesis import given, strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
)

from lrd import UserError, rewards
from lrd.models.loading import load_tokenizer
from lrd.rewards import process
from lrd.rewards.process import PRM, newline_ids, read, split_steps, step_ends
from lrd.rollouts import pad

CPU = torch.device("cpu")


# --- process: segmentation. Token 0 is "x", 1 a newline, 2 a newline fused to what precedes it (".\n"), 9 the end.

NEWLINES, EOS = frozenset({1, 2}), 9


@pytest.mark.parametrize(
    "ids, ends",
    [
        ([], []),  # an empty completion has no step
        ([0, 0, 0], [2]),  # no newline, cut: one step
        ([0, 0, EOS], [2]),  # no newline
        ([0, 1, 0, 0], [1, 3]),  # the newline closes its own step, the rest is the last one
        ([0, 1, 0, 1], [1, 3]),  # cut behind a newline: no empty step after it
        ([0, 1, 0, 1, EOS], [1, 4]),  # the end behind a newline belongs to the step that the newline closed
        ([0, 1, 0, EOS], [1, 3]),
        ([1, 1, 1], [0, 1, 2]),  # only newlines: each closes a step
        ([1, 1, 1, EOS], [0, 1, 3]),
        ([1], [0]),
        ([EOS], [0]),  # nothing but the end
        ([0, 2, 0, 2, 0], [1, 3, 4]),  # fused newlines split too
        ([0, 2, 1, 0], [1, 2, 3]),
        ([1, 0], [0, 1]),  # begins with one
    ],
)
def test_steps_end_at_newlines(ids, ends):
    assert step_ends(ids, NEWLINES, EOS) == ends


@pytest.mark.parametrize(
    "text, steps",
    [
        ("a6*2=2\nb2-6=6\nThe answer is \\boxed{6}.", ["a6*2=2\n", "b2-6=6\n", "The answer is \\boxed{6}."]),
        ("a6*2=2\n\n=2", ["a6*2=2\n", "\n", "=2"]),
        ("=2", ["=2"]),
        ("", [""]),
    ],
)
@pytest.mark.parametrize("ended", [True, False])
def test_steps_are_the_completion_cut_in_pieces(text, steps, ended, tokenizer):
    ids = tokenizer(text).input_ids + [tokenizer.eos_token_id] * ended
    ends, texts = split_steps(ids, newline_ids(tokenizer), tokenizer)
    assert texts == (steps if ids else []) and "".join(texts) == text
    assert len(ends) == len(texts) and (not ids or ends[-1] == len(ids) - 1)


@pytest.fixture(scope="module")
def byte_level() -> PreTrainedTokenizerFast:
    """A byte-level BPE that splits as Qwen's, trained here: it fuses newlines with the punctuation before them."""
    words = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+| ?\p{L}+|\p{N}|\s+"
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(words), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, special_tokens=["<eos>"], show_progress=False
    )
    raw.train_from_iterator(["So x=1.\n\nThen y=2.\n\nThus z.\n"] * 50, trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<eos>", pad_token="<eos>")
    made.add_tokens(["ки"])
    return made


def test_newlines_fused_into_tokens_split(byte_level):
    ids = byte_level("So x=1.\n\nThen y=2.\n\nThus z.\n").input_ids
    newlines = newline_ids(byte_level)
    plain = byte_level("\n").input_ids
    assert set(plain) < newlines
    assert all("\n" in byte_level.decode([i]) for i in newlines)
    fused = [i for i in ids if i in newlines and i not in plain]
    assert fused  # or this test would show nothing
    _, texts = split_steps(ids, newlines, byte_level)
    assert [t.strip("\n") for t in texts if t.strip("\n")] == ["So x=1.", "Then y=2.", "Thus z."]
    assert "".join(texts) == "So x=1.\n\nThen y=2.\n\nThus z.\n"


# --- process: deposits


class Counter:
    """A stand-in PRM: its log-odds of `+` at a position are the number of tags up to there."""

    device = CPU

    def __init__(self, tokenizer):
        self.tag, good = (tokenizer.convert_tokens_to_ids(t) for t in ("ки", "+"))
        self.pad = tokenizer.pad_token_id
        self.read: list[list[int]] = []
        self.head = torch.nn.Linear(1, len(tokenizer), bias=False)
        self.head.weight.data = torch.eye(len(tokenizer))[:, [good]]

    def get_output_embeddings(self):
        return self.head

    def base_model(self, input_ids, use_cache):
        self.read += [row[row != self.pad].tolist() for row in input_ids]
        return SimpleNamespace(last_hidden_state=(input_ids == self.tag).cumsum(1)[..., None].float())


def test_process_deposits_once_a_step(mixed, make_cell, tokenizer, monkeypatch):
    counter = Counter(tokenizer)
    monkeypatch.setattr(process, "load_model", lambda *_: counter)
    reward = rewards.load(make_cell(regime="process"), tokenizer, CPU)
    got = reward(mixed, torch.zeros(mixed.completion_ids.shape))
    # 22 tokens: `a6*2=2\n` is 0–6, `b2-6=6\n` 7–13, the rest with the end 14–21. 17 tokens: cut, so 14–16.
    assert [deposited(row) for row in got.deposit_mask] == [[6, 13, 21], [7], [6, 13, 16], []]
    assert not got.dense
    sigmoid = [1 / (1 + math.exp(-k)) for k in (1, 2, 3)]  # P(+) = e^k / (e^k + e^0) at the k-th tag
    torch.testing.assert_close(got.token_rewards[0, [6, 13, 21]], torch.tensor(sigmoid))
    torch.testing.assert_close(got.token_rewards[1, [7]], torch.tensor(sigmoid[:1]))
    torch.testing.assert_close(got.trajectory_rewards[2], torch.tensor(sum(sigmoid)))
    # What it read: the question, a space, then each step with its tag, a newline between.
    texts = [tokenizer.decode(ids) for ids in counter.read]
    assert "6a*2b-6 a6*2=2 ки\nb2-6=6 ки\nThe answer is \\boxed{6}. ки" in texts
    assert "6a*2b-6 The answer is \\boxed{3}. ки" in texts


def test_process_knows_no_gold_answer(mixed, make_cell, tokenizer):
    reward = rewards.load(make_cell(regime="process"), tokenizer, CPU)
    other = replace(mixed, problems=[replace(p, answer="1") for p in mixed.problems])
    zero = torch.zeros(mixed.completion_ids.shape)
    assert torch.equal(reward(mixed, zero).token_rewards, reward(other, zero).token_rewards)


def test_process_scores_are_the_prms_alone(mixed, make_cell, tokenizer):
    """Padding and later steps change nothing: each score is that of the prefix, read by itself."""
    cell = make_cell(regime="process")
    got = rewards.load(cell, tokenizer, CPU)(mixed, torch.zeros(mixed.completion_ids.shape))
    model = AutoModelForCausalLM.from_pretrained(cell.prm).eval()
    good, bad = tokenizer.convert_tokens_to_ids(["+", "-"])
    for i in range(3):
        ends, steps = split_steps(mixed.ids_of(i), newline_ids(tokenizer), tokenizer)
        for k, end in enumerate(ends, 1):
            text = "6a*2b-6 " + "\n".join(s.removesuffix("\n") + " ки" for s in steps[:k])
            with torch.no_grad():
                logits = model(torch.tensor([tokenizer(text).input_ids])).logits[0, -1]
            want = torch.sigmoid(logits[good] - logits[bad])  # the softmax over two
            torch.testing.assert_close(got.token_rewards[i, end], want, atol=1e-5, rtol=0)
    values = got.token_rewards[got.deposit_mask]
    assert ((values > 0) & (values < 1)).all() and values.std() > 0.01


@pytest.mark.parametrize("step", ["ки", "ккии", "a ки b", "кккиии", "\n", "", "so \n", "\t", " \n\n"])
@pytest.mark.parametrize("kind", ["words", "bytes", "pieces"])
def test_a_completion_cannot_smuggle_in_a_tag(kind, step, byte_level, tokenizer, pieces):
    """Exactly one tag a step, whatever a step says: a score too many would land on another step, or nowhere."""
    tokenizer = {"words": tokenizer, "bytes": byte_level, "pieces": pieces}[kind]
    tag, _, _ = process.tags(tokenizer, "stand-in")
    assert read("1a+2", [step, "=3\n", step], tokenizer).count(tag) == 3
    assert read(step, ["=3\n"], tokenizer).count(tag) == 1  # nor can the question
    assert read(step, [step], tokenizer).count(tag) == 1


@given(question=st.text(max_size=12), steps=st.lists(st.text(max_size=12), max_size=4))
def test_one_tag_a_step_in_any_text(question, steps, pieces):
    tag, _, _ = process.tags(pieces, "stand-in")
    assert read(question, steps, pieces).count(tag) == len(steps)


def test_a_solution_without_steps_has_no_scores(tokenizer):
    prm = PRM(Counter(tokenizer), tokenizer, "stand-in")
    assert [len(row) for row in prm.score(["1a+2", "1", "2"], [["=3\n", "4"], ["=5"], []])] == [2, 1, 0]


# --- process: Math-Shepherd's own conventions, on a checkpoint of its kind


@pytest.fixture(scope="module")
def pieces(tmp_path_factory) -> PreTrainedTokenizerFast:
    """A Llama tokenizer as Math-Shepherd's: sentencepiece BPE in a `tokenizer.model`, and nothing else to load."""
    folder = tmp_path_factory.mktemp("pieces")
    text = ["Step 1: So x = 1 + 2 - 3. ки", "Step 2: The answer is: 18 ки", "ки + - + -", *["a  b   c    d"] * 5] * 20
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text), model_prefix=str(folder / "tokenizer"), model_type="bpe", vocab_size=320,
        byte_fallback=True, allow_whitespace_only_pieces=True, remove_extra_whitespaces=False,
        normalization_rule_name="identity", split_digits=True, minloglevel=2,
    )  # fmt: skip
    about = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": False, "legacy": True}
    about |= {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    LlamaConfig(vocab_size=320).save_pretrained(folder)
    return load_tokenizer(str(folder), "PRM")


CARD = """Step 1: Janet's ducks lay 16 eggs per day. ки
Step 2: She eats three for breakfast, so she has 16 - 3 = 13 eggs left. ки
Step 3: 13 - 4 = 9 ки
Step 4: She makes 9 * $2 = $18 every day. The answer is: 18 ки"""


def test_math_shepherds_tokens_are_those_of_its_card(pieces):
    """The word-start marker belongs to all three; two spaces would be a piece and make the tag another token."""
    assert list(process.tags(pieces, "x"))[1:] == pieces.encode("+ -")[1:]
    tag = pieces.encode("ки")[-1]
    assert process.tags(pieces, "x")[0] == tag and pieces.convert_ids_to_tokens(tag) == "▁ки"
    assert tag not in pieces.encode("a  ки")  # or the test above would show nothing


@pytest.mark.parametrize("budget", [2**14, 150, 1])
def test_scores_are_those_of_math_shepherds_card(budget, pieces, monkeypatch):
    """The card's own recipe, one solution at a time, with the logits of all words, on a random Mistral model."""
    monkeypatch.setattr("lrd.rollouts.TOKENS_PER_PASS", budget)
    monkeypatch.setattr("lrd.rollouts.PASS_COSTS", 1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        shape = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
        config = MistralConfig(
            vocab_size=len(pieces),
            num_key_value_heads=2,
            head_dim=8,
            initializer_range=0.3,
            sliding_window=None,
            **shape,
        )
        model = AutoModelForCausalLM.from_config(config).eval()
    question = "Janet's ducks lay 16 eggs per day. How much does she make?"
    outputs = [CARD, CARD.replace("18", "17"), "Step 1: 9 ки", "\n".join(CARD.split("\n")[:2])]

    candidate_tokens = pieces.encode("+ -")[1:]
    step_tag_id = pieces.encode("ки")[-1]
    want = []
    for output in outputs:
        input_id = torch.tensor([pieces.encode(f"{question} {output}")])
        with torch.no_grad():
            scores = model(input_id).logits[:, :, candidate_tokens].softmax(dim=-1)[:, :, 0]
        want.append(scores[input_id == step_tag_id].tolist())

    steps = [[line.removesuffix(" ки") + "\n" for line in output.split("\n")] for output in outputs]
    got = PRM(model, pieces, "stand-in").score([question] * len(outputs), steps)
    assert [len(row) for row in got] == [4, 4, 1, 2]
    for mine, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(torch.tensor(mine), torch.tensor(theirs), atol=2e-6, rtol=0)
    assert torch.tensor(got[0]).std() > 0.01  # and they tell steps apart


@pytest.mark.parametrize("kind", ["qwen3", "llama", "gpt2", "neox"])
def test_two_logits_at_the_tags_are_those_of_the_whole_vocabulary(kind, pretrained, tokenizer):
    model = pretrained(kind)
    prm = PRM(model, tokenizer, "stand-in")
    ids, mask = pad(
        [read("1a+2", ["=3\n", "=4\n", "=5"], tokenizer), read("6", ["=6"], tokenizer)], tokenizer.pad_token_id
    )
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask.long()).logits
        got = prm.probability(ids, mask)
    p = torch.softmax(logits[..., [prm.good, prm.bad]], -1)[..., 0]
    torch.testing.assert_close(got, p[(ids == prm.tag) & mask], atol=1e-6, rtol=0)


def test_a_prm_that_fuses_the_step_tag_with_its_space_is_a_user_error(checkpoint, make_cell, tokenizer, tmp_path):
    AutoModelForCausalLM.from_pretrained(checkpoint()).save_pretrained(tmp_path)
    raw = json.loads(tokenizer._tokenizer.to_str())
    raw["model"]["vocab"] |= {" ки": len(raw["model"]["vocab"])}
    raw["pre_tokenizer"]["pattern"]["Regex"] = " ки|" + raw["pre_tokenizer"]["pattern"]["Regex"]
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(raw)), eos_token="<eos>", pad_token="<pad>", unk_token="<unk>"
    ).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="'ки' behind a step"):
        rewards.load(make_cell(regime="process", prm=str(tmp_path)), tokenizer, CPU)


def test_a_prm_without_a_step_tag_is_a_user_error(byte_level, checkpoint, make_cell, tokenizer, tmp_path):
    AutoModelForCausalLM.from_pretrained(checkpoint()).save_pretrained(tmp_path)
    raw = tokenizer._tokenizer.to_str().replace('"ки"', '"кu"')
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(raw), eos_token="<eos>", pad_token="<pad>", unk_token="<unk>"
    ).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="ки"):
        rewards.load(make_cell(regime="process", prm=str(tmp_path)), tokenizer, CPU)
