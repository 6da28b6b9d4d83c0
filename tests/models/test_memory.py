"""What a cell takes of a GPU, worked out from published shapes, by hand and against what was measured."""

import dataclasses
import importlib.util
import re

import pytest
import torch
from transformers import AutoModelForCausalLM, MistralConfig, Qwen3Config

from lrd import UserError, rewards
from lrd.cell import Cell
from lrd.models import memory
from lrd.models.loading import skeleton
from lrd.models.logps import LOGITS_AT_ONCE
from lrd.models.memory import needed_gib, size
from lrd.models.shape import Shape
from lrd.rollouts import TOKENS_PER_PASS
from lrd.testbed.corpus import tokenizer as corpus_tokenizer

QWEN_1_7B = dict(
    hidden_size=2048, num_hidden_layers=28, num_attention_heads=16, num_key_value_heads=8, head_dim=128,
    intermediate_size=6144, vocab_size=151936, tie_word_embeddings=True,
)  # fmt: skip
QWEN_8B = dict(
    hidden_size=4096, num_hidden_layers=36, num_attention_heads=32, num_key_value_heads=8, head_dim=128,
    intermediate_size=12288, vocab_size=151936, tie_word_embeddings=False,
)  # fmt: skip
MISTRAL_7B = dict(
    hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8, intermediate_size=14336,
    vocab_size=32000, tie_word_embeddings=False,
)  # fmt: skip


def hollow(config):
    """A model of this configuration, without memory for its weights."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


@pytest.fixture(scope="module", params=[True, False], ids=["fused", "plain"])
def fused(request):
    """With Liger's kernels and without, whatever is installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: name if request.param else None)
        yield request.param


@pytest.fixture(scope="module")
def student(fused):
    return size(hollow(Qwen3Config(**QWEN_1_7B)), Cell.lora_targets)


@pytest.fixture(scope="module")
def models(fused):
    return {
        "outcome": None,
        "process": size(hollow(MistralConfig(**MISTRAL_7B)), Cell.lora_targets),
        "distillation": size(hollow(Qwen3Config(**QWEN_8B)), Cell.lora_targets),
    }


def paper(regime="outcome", rank: int | str = 16, **changes) -> Cell:
    return Cell.load("paper", regime=regime, rank=rank, seed=0, **changes)


def test_parameters_of_the_published_shapes(student, models):
    """1.7, 7.2 and 8.2 billion, as the models' own pages say; for Qwen also by the book's formula."""
    assert student.parameters == Shape(**QWEN_1_7B).parameters == 1_720_574_976
    assert models["distillation"].parameters == Shape(**QWEN_8B).parameters == 8_190_735_360
    assert models["process"].parameters == 7_241_732_096
    assert student.adapter == Shape(**QWEN_1_7B).adapter_parameters(1) == 1_089_536


def test_a_cell_by_hand(student, fused):
    """Rank 16, bf16; 16 rows of 256 + 1536 tokens, 56 of 512 + 1536 in the engine."""
    got = needed_gib(paper(), student)
    kept = 28 * (4 * 2048 + 3 * 2048 + 3 * 1024 + 3 * 6144 + (0 if fused else 6144 + 4 * 2048))  # values a token
    want = {
        "student and reference": 2 * 1_720_574_976,
        "what is trained": 16 * 1_089_536 * (4 + 4 + 8 + 2),
        "engine": 2 * 1_720_574_976 + 56 * 2048 * 28 * 2 * 1024 * 2,
        "activations": 16 * 1792 * kept * 2 + 3 * 4 * 2**26,
        "CUDA": 2**30,
    }
    assert got == pytest.approx({name: n / 2**30 for name, n in want.items()})


def test_what_is_computed_again_takes_no_memory(student, fused):
    """Four of 16 rows of 256 + 1536 tokens; each layer's input of 2048 values, and one layer's own."""
    logits = 3 * 4 * LOGITS_AT_ONCE
    whole, layer = (
        28 * (4 * 2048 + 3 * 2048 + 3 * 1024 + 3 * 6144 + (0 if fused else 6144 + 4 * 2048)),
        28 * 2048 + (4 * 2048 + 3 * 2048 + 3 * 1024 + 3 * 6144 + (0 if fused else 6144 + 4 * 2048)),
    )
    for changes, values in (
        ({"micro_batch": 4}, 4 * whole),
        ({"checkpointing": "layers"}, 16 * layer),
        ({"micro_batch": 4, "checkpointing": "layers"}, 4 * layer),
        ({"micro_batch": 99}, 16 * whole),
    ):
        assert needed_gib(paper(**changes), student)["activations"] * 2**30 == values * 1792 * 2 + logits


def test_prompts_of_a_codebook_are_short(student):
    """16 tokens in place of 256, beside 1536 of a completion; the logits' share stays."""
    usual, keys = (needed_gib(paper(train_data=d), student)["activations"] for d in ("chain", "codebook-64x2-1"))
    logits = 3 * 4 * 2**26 / 2**30
    assert (keys - logits) / (usual - logits) == pytest.approx((16 + 1536) / (256 + 1536))
    assert len(corpus_tokenizer("codebook")("Bppp=").input_ids) <= memory.KEY


def test_full_fine_tuning_keeps_masters_moments_and_a_reference(student):
    full, bf16 = (needed_gib(paper(rank="full", master_dtype=d), student) for d in ("float32", "bfloat16"))
    billions = 1_720_574_976 / 2**30
    assert full["what is trained"] == pytest.approx(18 * billions)  # 4 each of master, gradient, two moments; a copy
    assert bf16["what is trained"] == pytest.approx(10 * billions)
    assert full["student and reference"] == pytest.approx(2 * billions)


def test_a_learner_step_is_what_was_measured(student, fused, monkeypatch):
    """On an H200, rank 16, 16 rows of 100 + 1536 tokens, no checkpointing: 62 GB with Liger's kernels, 81 without.

    That was with slices of 2**28 logits.
    """
    monkeypatch.setattr(memory, "LOGITS_AT_ONCE", 2**28)
    cell = paper(max_completion_tokens=1636 - memory.PROMPT)
    parts = needed_gib(cell, student)
    gb = sum(parts[k] for k in ("student and reference", "what is trained", "activations")) * 2**30 / 1e9
    assert gb == pytest.approx(62 if fused else 81, rel=0.06)


def test_a_reward_model_stands_beside(student, models):
    """7.24 billion weights in bf16, and a pass: 16 rows of 256 + 1536 tokens go through in one, 64 do not."""
    weights, widest = 2 * 7_241_732_096, 2 * (4 * 4096 + 3 * 14336)
    for changes, tokens in (({}, 16 * 1792), ({"samples_per_prompt": 16}, TOKENS_PER_PASS)):
        reads = needed_gib(paper("process", **changes), student, models["process"])["reward model"]
        assert reads * 2**30 == weights + tokens * widest


@pytest.mark.parametrize("kind", ["qwen3", "llama", "gpt2", "neox"])
def test_any_causal_lm_has_a_size(kind, pretrained, checkpoint):
    names = {"gpt2": ("c_attn", "c_proj", "c_fc"), "neox": ("query_key_value", "dense")}
    model = pretrained(kind)
    got = size(skeleton(checkpoint(kind), "student"), names.get(kind, Cell.lora_targets))
    half = size(skeleton(checkpoint(kind), "student"), names.get(kind, Cell.lora_targets), (1,))
    assert half == dataclasses.replace(got, adapter=got.adapter // 2)  # one of two layers
    assert got.parameters == model.num_parameters() and got.adapter > 0 and got.kept > 0


@pytest.fixture
def card(monkeypatch):
    """A GPU of so many free GiB, to be asked only how much it has."""

    def install(gib: float) -> torch.device:
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(gib * 2**30), 2**40))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA Test")
        return torch.device("cuda")

    return install


@pytest.fixture
def published(monkeypatch):
    """The paper's configurations without the Hub."""
    configs = {"Qwen/Qwen3-1.7B-Base": Qwen3Config(**QWEN_1_7B), "Qwen/Qwen3-8B": Qwen3Config(**QWEN_8B)}
    configs["peiyi9979/math-shepherd-mistral-7b-prm"] = MistralConfig(**MISTRAL_7B)
    monkeypatch.setattr(memory, "skeleton", lambda name, role: hollow(configs[name]))


@pytest.mark.parametrize(
    "gib, said",
    [(80, "--set eval_batch="), (60, "--set eval_batch=28 --set max_completion_tokens="), (6, "a GPU with")],
)
def test_too_little_memory_is_said_with_what_would_fit(gib, said, card, published):
    cell = paper("process")
    with pytest.raises(
        UserError, match=rf"process-r16-s0 needs about \d+ GiB .*NVIDIA Test has {gib} GiB free; {said}"
    ) as e:
        memory.check(cell, card(gib), "PRM")
    assert "\n" not in str(e.value)
    if "--set" in said:  # and it does fit
        changes = {key: int(value) for key, value in re.findall(r"--set (\w+)=(\d+)", str(e.value))}
        memory.check(dataclasses.replace(cell, **changes), card(gib), "PRM")


def test_enough_memory_is_not_remarked_on(card, published, monkeypatch):
    """Every LoRA cell on an H200 with Liger's kernels."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    for regime in ("outcome", "process", "distillation"):
        cell = paper(regime)
        memory.check(cell, card(139), rewards.model_of(cell))


def test_an_engine_that_is_there_already_is_not_counted_again(card, published):
    """Process and full fine-tuning: of all that is needed, 15.5 GiB are the engine's."""
    cell = paper("process", rank="full")
    models = [size(memory.skeleton(name, "model"), cell.lora_targets) for name in (cell.student, cell.prm)]
    needed = needed_gib(cell, *models)
    gib = sum(needed.values()) - 1
    assert needed["engine"] == pytest.approx(15.5, abs=0.1)
    with pytest.raises(UserError, match="engine 15.5"):
        memory.check(cell, card(gib), "PRM")
    memory.check(cell, card(gib), "PRM", has_engine=True)


def test_a_tiny_cell_takes_next_to_nothing(make_cell):
    student = size(skeleton(make_cell().student, "student"), Cell.lora_targets)
    assert sum(needed_gib(make_cell(max_completion_tokens=96), student).values()) < memory.CUDA + 0.2


def test_without_a_gpu_the_machines_memory_counts(monkeypatch, published):
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: type("", (), {"available": 8 * 2**30}))
    with pytest.raises(UserError, match="there is no GPU here, and the machine has 8 GiB free"):
        memory.check(paper(), torch.device("cpu"))
