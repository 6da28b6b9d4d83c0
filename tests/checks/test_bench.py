"""The benchmarks, with toys in the place of their models: what they make and what they count."""

import json
import time

import psutil
import pytest
import torch

from lrd import UserError
from lrd.cell import Cell
from lrd.checks import bench, bench_gpu, stand_ins

TOY = dict(
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    vocab_size=500,
    max_position_embeddings=512,
)
SHAPES = {
    "student": TOY | {"model_type": "qwen3", "tie_word_embeddings": True},
    "teacher": TOY | {"model_type": "qwen3", "tie_word_embeddings": False},
    "prm": TOY | {"model_type": "mistral", "tie_word_embeddings": False, "vocab_size": 30_100},
}


@pytest.mark.slow
def test_a_step_and_a_rollout_are_measured_beside_trls_and_transformers(checkpoint, monkeypatch):
    usual = Cell.load.__func__
    small = {"student": checkpoint("qwen3"), "prompts_per_step": 2, "samples_per_prompt": 2}
    monkeypatch.setattr(Cell, "load", classmethod(lambda cls, preset, **given: usual(cls, preset, **small | given)))
    for name, value in (("ROUNDS", 1), ("WARM_UP", 1), ("STEPS", 2), ("TOKENS", 8)):
        monkeypatch.setattr(bench, name, value)
    first, *lines, _ = bench.run("tiny").splitlines()
    assert first == "tiny: 2 × 2 completions of 8 tokens"
    assert [line.split()[:2] for line in lines[::3]] == [["rollout", "rank"], ["rollout", "full"]]
    assert [line.split()[:2] for line in lines[1::3]] == [["step", "rank"], ["step", "full"]]
    assert all("of ours: rollout " in line for line in lines[2::3]) and len(lines) == 6


def test_without_a_gpu_it_says_so():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match="needs a GPU"):
        bench_gpu.run("paper")


def test_shapes_are_those_of_the_presets_models():
    shapes = stand_ins.shapes_of("paper")
    assert set(shapes) == {"student", "teacher", "prm"}
    assert (shapes["student"]["hidden_size"], shapes["prm"]["model_type"]) == (2048, "mistral")
    with pytest.raises(UserError, match=r"no shape for \./models/tiny"):
        stand_ins.shapes_of("tiny")


def test_a_word_is_a_token_of_the_student_and_of_the_prm():
    student, prm = stand_ins.student_words(500), stand_ins.prm_words()
    assert len(student) == 500
    ids = [44, 42, 43, 82]  # w40 and w80 end lines
    text = student.decode(ids)
    assert text == " w42 w40\n w41 w80\n"
    assert student(text).input_ids == ids
    assert len(prm(text).input_ids) == 4 and prm.unk_token_id not in prm(f"{text} ки + -").input_ids
    assert len(student(" ".join(["w1"] * 98)).input_ids) == 98


@pytest.mark.slow
def test_rows_are_measured_steps_of_the_stand_ins(tmp_path, monkeypatch):
    stand_ins.make(SHAPES, tmp_path)
    monkeypatch.setattr(bench_gpu, "WARM_UP", 1)
    monkeypatch.setattr(bench_gpu, "STEPS", 1)
    monkeypatch.setattr(bench_gpu, "SHORT", 8)
    monkeypatch.setattr(bench_gpu, "ROWS", [("outcome", 4, 12), ("process", "full", 8), ("distillation", 4, 12)])
    usual = Cell.load.__func__

    def small(cls, preset, **settings):
        return usual(cls, preset, **settings | {"engine": "torch", "eval_batch": 2, "eval_problems": 2})

    monkeypatch.setattr(Cell, "load", classmethod(small))
    measured = bench_gpu.our_rows("paper", tmp_path)
    assert [(row["regime"], row["arm"], row["completion_tokens"]) for row in measured["rows"]] == [
        ("outcome", "r4", 12),
        ("process", "full", 8),
        ("distillation", "r4", 12),
    ]
    for row in measured["rows"]:
        assert row["steps"] == 1 and 0 < row["mean_length"] <= row["completion_tokens"]
        assert sum(row["parts"].values()) == pytest.approx(row["step"])
        assert row["parts"]["rollout"] > 0 and row["logp_difference"] >= 0
    assert measured["eval_seconds"] > 0
    assert bench_gpu.fallback_row("paper", tmp_path)["who"] == "ours without vLLM"
    token = bench_gpu.token("paper", tmp_path, "torch")
    assert token["engine"] == "torch" and min(token["clock"], token["greedy"]) > 0
    assert set(token["card"]) <= {*bench_gpu.KINDS, "the rest"} and all(ms >= 0 for ms in token["card"].values())
    assert 0 < bench_gpu.first_step("paper", tmp_path) < time.time() - psutil.Process().create_time()
    problems = [json.loads(line) for line in (tmp_path / "problems.jsonl").read_text().splitlines()]
    assert {len(row["problem"].split()) for row in problems} == {stand_ins.PROMPT - 2}


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("nvjet_tst_64x8_64x16_2x1_v_bz_splitK_TNT", "products"),
        ("void flash::FlashAttnFwdSm90<Params, cutlass::bfloat16>", "attention"),
        ("_topk_topp_kernel", "drawing"),
        ("triton_red_fused_add_mean_mul_pow_rsqrt_0", "the rest"),
    ],
)
def test_kernels_are_told_apart_by_their_names(kernel, kind):
    assert bench_gpu.kind(kernel) == kind


def test_the_least_seconds_are_bytes_and_products_over_the_cards_rates():
    """By hand for a model of 1000 parameters, 2 layers of 1 key head of 4: 32 bytes of cache a token."""
    rates = {"bytes_a_second": 1e3, "products_a_second": 1e4}
    got = bench_gpu.least_seconds(1000, 32, rows=2, prompt=10, completion=20, **rates)
    assert got["decode"] == pytest.approx(20 * (2 * 1000 + 2 * 32 * (10 + 10)) / 1e3)
    assert got["reference"] == pytest.approx(2 * 1000 * 2 * 30 / 1e4)
    assert got["learner"] == pytest.approx(2 * got["reference"])
