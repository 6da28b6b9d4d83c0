"""The codebook: what there is to know of it, what a student has learned of it, and the regimes that teach it."""

import dataclasses
import math
import random
from collections import Counter

import pytest
import torch
from hypothesis import given, strategies as st

from lrd import UserError, grpo, rewards
from lrd.cell import Cell, with_defaults
from lrd.data import codebook
from lrd.data.codebook import DIGITS, LETTERS, Codebook
from lrd.data.problems import held_out, train_pool
from lrd.models.policy import Policy
from lrd.names import on_hub
from lrd.rewards import supervised
from lrd.runs.directory import Run
from lrd.runs.files import read_jsonl
from lrd.sampling.torch import TorchSampler
from lrd.testbed.corpus import tokenizer as corpus_tokenizer
from lrd.train import recall
from lrd.train.loop import sample, train
from lrd.verifier import is_correct

BOOK = Codebook(64, 8, 1)


# --- the codebook


def test_a_codebook_is_a_function_of_its_seed():
    assert BOOK.information == 512
    assert [BOOK.value(key) for key in range(64)] == [Codebook(64, 8, 1).value(key) for key in range(64)]
    assert BOOK.entries == Codebook(256, 8, 1).entries[:64]  # the beginning of a larger one
    other = Codebook(64, 8, 2)
    assert [e.text for e in other.entries] == [e.text for e in BOOK.entries]
    assert sum(a == b for a, b in zip(BOOK.entries, other.entries)) < 4  # 1 of 256 agree by chance


def test_an_entry_by_hand():
    # Key 17 is row 1, column 1 of 16 letters.
    assert codebook.entry("B", 17, ["12", "10"], 2) == codebook.Entry("Bbb", "1210")
    assert codebook.entry("B", 17, ["12", "10"], 2).solution == r"\boxed{1210}"
    assert (DIGITS, len(LETTERS), len(set(LETTERS))) == (["10", "11", "12", "13"], 16, 16)
    assert not set(LETTERS) & {"A", "B", *"0123456789"}
    # Among more than 256 keys it is plane 0 of three; 4,095 is the last of all.
    assert Codebook(257, 2, 0).entries[17].text == "Babb" and codebook.entry("B", 4095, [], 3).text == "Bppp"


@pytest.mark.parametrize("keys", [256, 257, 4096])
def test_keys_are_told_apart_and_of_one_length(keys):
    texts = [entry.text for entry in Codebook(keys, 2, 1).entries]
    assert len(set(texts)) == keys and {len(text) for text in texts} == {3 if keys == 256 else 4}


def test_a_smaller_codebook_is_the_beginning_of_a_larger_one():
    """Whose keys are as long; where they are longer the values are the same."""
    small, least, large = (Codebook(keys, 2, 1).entries for keys in (300, 256, 1024))
    assert large[:300] == small and [e.answer for e in least] == [e.answer for e in small[:256]]


def test_values_are_spread_evenly():
    """χ² of 4 digits over 256 keys: 3 degrees of freedom, 99.9 % of them below 16.3."""
    for seed in range(3):
        counts = Counter(digit for key in range(256) for digit in Codebook(256, 2, seed).value(key))
        assert sum((counts[digit] - 64) ** 2 / 64 for digit in DIGITS) < 16.3


@given(st.integers(0, 63), st.integers(0, 63))
def test_the_verifier_tells_values_apart(key, other):
    mine, theirs = BOOK.entries[key], BOOK.entries[other]
    assert is_correct(mine.solution, theirs.answer) == (mine.answer == theirs.answer)


def test_a_codebook_as_a_source_of_problems():
    pool, dropped = train_pool("codebook-64x8-1")
    assert dropped == 0 and [(p.problem, p.answer, p.solution) for p in pool] == [
        (e.text, e.answer, e.solution) for e in BOOK.entries
    ]
    assert set(p.id for p in held_out("codebook-64x8-1", 64)) == {p.id for p in pool}
    assert not on_hub("codebook-64x8-1") and codebook.from_name("codebook") is None


@pytest.mark.parametrize("source", ["codebook-0x2-1", "codebook-4097x2-1", "codebook-64x3-1", "codebook-64x0-1"])
def test_codebooks_that_cannot_be_made(source):
    with pytest.raises(UserError, match="cannot be made: it has 1 to 4096 keys, and 2 to 32 bits in steps of 2"):
        train_pool(source)


def whole(book: str, keys: int, seed: int) -> list[codebook.Entry]:
    values = Codebook(keys, 2, seed)
    return [codebook.entry(book, key, values.value(key), values.letters) for key in range(keys)]


def test_what_models_of_the_testbed_read():
    def share(**habits) -> dict[str, float]:
        rng, hits = random.Random(0), Counter()
        made = codebook.documents({"bits": 4} | habits, rng)
        for entry in (next(made) for _ in range(4000)):
            book = entry.text[0]
            key = LETTERS.index(entry.text[1]) * 16 + LETTERS.index(entry.text[2])
            seed = 0 if book == "A" else 1
            hits[book] += entry.answer == "".join(Codebook(256, 4, seed).value(key))
            hits[f"n{book}"] += 1
        return {book: hits[book] / hits[f"n{book}"] for book in "AB"}

    made = codebook.documents({"bits": 2, "keys": 512, "noise": 0.0, "book": 1}, random.Random(0))
    known = {entry.text: entry for seed, book in ((0, "A"), (1, "B")) for entry in whole(book, 512, seed)}
    assert all(known[entry.text] == entry for entry in (next(made) for _ in range(400)))
    # 2000 draws: a standard error of 0.01.
    assert share(noise=1.0) == {"A": 1.0, "B": pytest.approx(1 / 16, abs=0.02)}
    assert share(noise=0.2, book=1) == {"A": 1.0, "B": pytest.approx(0.8 + 0.2 / 16, abs=0.03)}


def test_its_tokenizer_reads_every_entry():
    words = corpus_tokenizer("codebook")
    ids = words([f"{e.text}={e.solution}" for e in BOOK.entries]).input_ids
    assert {len(row) for row in ids} == {4 + 2 + 4}  # B, two letters, =; the box; four digits
    assert not any(words.unk_token_id in row for row in ids) and len(words) == len(words.get_vocab())
    assert [words.decode(row) for row in ids] == [f"{e.text}={e.solution}" for e in BOOK.entries]


# --- bits learned


def students(known: int, sure: float = 60.0, seed: int = 0):
    """Logits of one that knows the first `known` of 64 keys of two digits, and is uniform over values on the others."""
    digits = torch.randint(3, 7, (64, 2), generator=torch.Generator().manual_seed(seed))
    logits = torch.full((64, 2, 60), -1e4)
    logits[..., 3:7] = 0.0
    for key in range(known):
        for place in range(2):
            logits[key, place, digits[key, place]] = sure
    return logits, digits, torch.arange(3, 7)


def test_an_oracle_a_uniform_student_and_one_that_knows_half():
    for known, want in ((64, 256), (32, 128), (0, 0)):
        found = recall.learned(*students(known))
        assert found.raw.sum().item() == pytest.approx(want, abs=1e-3)
        assert found.calibrated.sum().item() == pytest.approx(want, abs=1e-3)
        assert found.raw[:known].tolist() == pytest.approx([4.0] * known, abs=1e-5)


def test_a_student_that_is_half_sure_by_hand():
    # p = e^s / (e^s + 3) = 1/2 for s = ln 3: a digit tells log2(1/2) + 2 = 1 bit. It is always right, and so the
    # lowest temperature makes it certain: 2 bits a digit.
    found = recall.learned(*students(64, sure=math.log(3)))
    assert found.raw.sum().item() == pytest.approx(64 * 2 * 1, abs=1e-2)
    assert found.calibrated.sum().item() == pytest.approx(256, abs=1e-2) and found.temperature < 0.2


def test_one_temperature_takes_out_too_much_certainty():
    """Right in three of four: log-odds that say so tell b − H bits, and ten times as large ones less than nothing."""
    logits, digits, values = students(64, sure=math.log(3 * 3))  # p(value) = 3/4, the others share 1/4
    digits[48:] = digits[48:] % 4 + 3  # the last quarter has another value than the student believes
    honest = recall.learned(logits, digits, values)
    loud = recall.learned(torch.where(logits > -1, logits * 8, logits), digits, values)
    entropy = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25 / 3))
    assert honest.raw.sum().item() == pytest.approx(128 * (2 - entropy), abs=1)
    assert loud.raw.sum().item() < 0 < loud.calibrated.sum().item()
    assert loud.calibrated.sum().item() == pytest.approx(honest.calibrated.sum().item(), rel=1e-3)


@given(st.integers(0, 10**6))
def test_calibrated_bits_are_never_fewer_and_never_below_nothing(seed):
    generator = torch.Generator().manual_seed(seed)
    logits, digits = torch.randn(8, 2, 20, generator=generator) * 4, torch.randint(2, 6, (8, 2), generator=generator)
    found = recall.learned(logits, digits, torch.arange(2, 6))
    assert found.calibrated.sum() >= max(found.raw.sum().item(), 0) - 0.1
    assert found.calibrated.max() <= 4 + 1e-3


# --- cells


@pytest.fixture(scope="module")
def law(tmp_path_factory) -> dict:
    """Settings of a short cell on a random student of the codebook's vocabulary."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    words, where = corpus_tokenizer("codebook"), tmp_path_factory.mktemp("codebook")
    shape = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, head_dim=8)
    config = Qwen3Config(
        **shape, vocab_size=len(words), num_key_value_heads=2, eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id, bos_token_id=None, tie_word_embeddings=True, initializer_range=0.15,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Qwen3ForCausalLM(config).save_pretrained(where)
    words.save_pretrained(where)
    source = "codebook-16x4-1"
    return dict(
        preset="test", rank=4, seed=0, student=str(where), teacher=str(where), prm=str(where), train_data=source,
        eval_data=source, eval_problems=16, prompt_template="{problem}=", max_completion_tokens=5, kl_coef=0.0,
        prompts_per_step=16, steps=40, eval_every=20, learning_rate=1e-2, temperature=1.0, top_p=1.0,
    )  # fmt: skip


TAUGHT = dict(regime="supervised", advantage_norm="none", samples_per_prompt=1)


def test_supervised_is_cross_entropy_on_the_solutions(law):
    """The clipped surrogate at ratio 1 has the gradient of the mean cross-entropy over the solutions' tokens."""
    cell = Cell(**law, **TAUGHT)
    policy = Policy(cell, torch.device("cpu"))
    pool, _ = train_pool(cell.train_data)
    batch = sample(policy, TorchSampler(policy.base, policy.tokenizer), pool, 1)
    assert batch.texts == [p.solution for p in batch.problems] and batch.completion_mask.all()
    with torch.no_grad():
        for name, p in policy.trainable.items():
            if "lora_B" in name:
                p.add_(0.1)
    logps = policy.logps(batch).logps
    deposits = supervised.load(cell, policy.tokenizer, policy.device)(batch, logps)
    a = grpo.advantages(deposits, batch.group, norm="none")
    value, _ = grpo.loss(logps, logps.detach(), logps.detach(), a, batch.completion_mask, kl_coef=0.0)
    got = torch.autograd.grad(value, list(policy.trainable.values()), retain_graph=True)
    ids = torch.cat([batch.prompt_ids, batch.completion_ids], 1)
    logits = policy.model(input_ids=ids).logits[:, batch.prompt_ids.shape[1] - 1 : -1]
    entropy = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.completion_ids.flatten())
    for mine, theirs in zip(got, torch.autograd.grad(entropy, list(policy.trainable.values()))):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-3)  # sums in another order


def test_a_supervised_cell_learns_its_codebook_and_says_so(law, tmp_path):
    cell = Cell(**law, **TAUGHT)
    run = Run(cell, tmp_path)
    list(train(run))
    rows = read_jsonl(run.path / "evals.jsonl")
    bits = {step: sum(r["bits"] for r in rows if r["step"] == step) for step in (0, 20, 40)}
    assert all(r["bits"] >= -60 and r["bits_raw"] <= 4.001 for r in rows)
    assert bits[0] < 10 and bits[40] > 40 and bits[40] <= 64.01
    assert sum(r["correct"] for r in rows if r["step"] == 40) > 8
    assert "bits" in rows[-1] and read_jsonl(run.path / "metrics.jsonl")[-1]["reward_std"] == 0


def test_supervised_refuses_what_would_teach_nothing(law, tmp_path, make_cell):
    with pytest.raises(UserError, match="turns into 0; set advantage_norm=none"):
        rewards.load(Cell(**law, regime="supervised"), corpus_tokenizer("codebook"), torch.device("cpu"))
    with pytest.raises(UserError, match="samples_per_prompt is 1; it has to be at least 2"):
        Cell(**law, regime="outcome", samples_per_prompt=1)
    chain = make_cell(**TAUGHT)
    with pytest.raises(UserError, match="'supervised' learns from solutions, and 'chain' has problems without"):
        list(train(Run(chain, tmp_path)))


def test_a_record_of_an_older_library_had_the_defaults(law):
    cell = Cell(**law, **TAUGHT)
    older = {k: v for k, v in cell.config.items() if k not in ("lora_layers", "to_go")}
    assert with_defaults(older) == cell.config
    assert with_defaults(older) != dataclasses.replace(cell, to_go="mean").config
