"""What is refused before a weight is read: models, tokenizers and lengths that cannot work, a sentence each."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import normalizers
from transformers import (
    AutoModel,
    AutoModelForTokenClassification,
    BertConfig,
    BloomConfig,
    Gemma2Config,
    Lfm2Config,
    LlamaConfig,
    MambaConfig,
    OpenAIGPTConfig,
    PegasusConfig,
    Phi3Config,
    Qwen3Config,
    T5Config,
    XLNetConfig,
)

from lrd import UserError, rewards
from lrd.data import problems
from lrd.data.tokens import prompt
from lrd.matrix import plan
from lrd.models import loading as models
from lrd.models.limits import positions
from lrd.models.logps import token_logps
from lrd.rewards.outcome import on_last_token
from lrd.rewards.process import probe
from lrd.rollouts import Completion, collate
from lrd.runs.directory import Run
from lrd.runs.files import read_json
from lrd.train import evaluate, inputs
from lrd.train.loop import credit, train

CPU = torch.device("cpu")
MIXED = {"num_hidden_layers": 2, "layer_types": ["conv", "full_attention"]}
SHORT = {"steps": 2, "eval_every": 2, "eval_problems": 4, "max_completion_tokens": 8}


def refused(cell, says: str) -> None:
    """In one sentence by what comes before a matrix and by training, which leaves nothing; in no more than 1.5 s."""
    start = time.process_time()
    with pytest.raises(UserError, match=says) as error:
        plan.check([cell])
    assert time.process_time() - start < 1.5
    assert "\n" not in str(error.value) and len(str(error.value)) < 500
    with pytest.raises(UserError, match=says):
        list(train(Run(cell, Path(cell.student).parent / "runs")))
    assert not list((Path(cell.student).parent / "runs").rglob("*.json*"))


# --- lengths


def longest_prompt(cell, tokenizer, pool) -> int:
    return max(map(len, tokenizer([prompt(p.problem, cell, tokenizer) for p in pool]).input_ids))


@pytest.mark.parametrize("kind", ["qwen3", "gpt2"])
@pytest.mark.parametrize("role", ["student", "teacher", "PRM"])
def test_what_is_longer_than_the_positions_is_refused(kind, role, variant, make_cell, tokenizer):
    regime = {"student": "outcome", "teacher": "distillation", "PRM": "process"}[role]
    field, cap = role.lower(), 20
    student = variant("student")  # of 256 positions
    cell = make_cell(regime=regime, rank=None, max_completion_tokens=cap, student=student)
    pool, _ = problems.train_pool("chain")
    exactly = longest_prompt(cell, tokenizer, pool) + cap
    if role == "PRM":  # a question, and at most every second token closes a step
        exactly = max(map(len, tokenizer([p.problem for p in pool]).input_ids)) + cap * 3 // 2
    fits, short = (variant(f"model-{n}", kind=kind, max_position_embeddings=n) for n in (exactly, exactly - 1))
    plan.check([replace(cell, **{field: fits})])
    refused(replace(cell, **{field: short}), rf"{role} .* has {exactly - 1} positions, too few for a problem of")


def test_the_longest_problem_of_either_split_counts(variant, make_cell, tmp_path, tokenizer):
    for name, digits in (("short", 10), ("long", 300)):
        rows = [{"id": str(i), "problem": "1" * (digits + i), "answer": str(i)} for i in range(5)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    cell = make_cell(student=variant("student"), eval_problems=2, prompts_per_step=2)
    for train_data, eval_data in (("long", "short"), ("short", "long")):
        of = {"train_data": str(tmp_path / f"{train_data}.jsonl"), "eval_data": str(tmp_path / f"{eval_data}.jsonl")}
        refused(replace(cell, **of), r"has 256 positions, too few for a problem of '.*long.jsonl'")


def test_a_shown_solution_counts_and_not_its_cap(variant, make_cell, tmp_path, tokenizer):
    rows = [{"problem": "1", "answer": "1", "solution": "1" * n} for n in (3, 30)]
    (tmp_path / "shown.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    how = {"regime": "supervised", "advantage_norm": "none", "train_data": str(tmp_path / "shown.jsonl")}
    cell = make_cell(**how, prompts_per_step=2, max_completion_tokens=4, prompt_template="{problem}", rank=None)
    exactly = 1 + 30 + 1  # problem, solution, end
    pool, _ = problems.train_pool(cell.train_data)
    fits, short = (variant(f"model-{n}", kind="gpt2", max_position_embeddings=n) for n in (exactly, exactly - 1))
    inputs.check(replace(cell, student=fits), tokenizer, pool, [])
    with pytest.raises(UserError, match=f"has {exactly - 1} positions.* with 31 tokens and 1 that may follow"):
        inputs.check(replace(cell, student=short), tokenizer, pool, [])


def test_positions_of_published_kinds():
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768, "rope_theta": 1e6}
    assert positions(Qwen3Config(max_position_embeddings=32768)) == 32768
    assert positions(Qwen3Config(max_position_embeddings=32768, rope_parameters=yarn)) == 131072
    llama3 = {
        "rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192, "rope_theta": 5e5,
        "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    }  # fmt: skip
    assert positions(LlamaConfig(max_position_embeddings=131072, rope_parameters=llama3)) == 131072
    assert positions(BloomConfig()) is None  # ALiBi: no limit
    dynamic = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}  # frequencies change with the length beyond
    assert positions(LlamaConfig(max_position_embeddings=2048, rope_parameters=dynamic)) == 2048
    long = {
        "rope_type": "longrope", "short_factor": [1.0] * 48, "long_factor": [2.0] * 48, "rope_theta": 1e4,
        "original_max_position_embeddings": 4096,
    }  # fmt: skip
    assert positions(Phi3Config(max_position_embeddings=131072, rope_parameters=long)) == 4096


@pytest.mark.usefixtures("unchecked")  # jaxtyping's checks of 60,000 calls take longer than the calls
def test_seven_thousand_problems_take_little_time(variant, make_cell, tmp_path):
    rows = [{"problem": f"{i}" + "1a+2" * 60, "answer": "1"} for i in range(7500)]
    (tmp_path / "many.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    cell = make_cell(student=variant("student"), train_data=str(tmp_path / "many.jsonl"), eval_problems=4)
    refused(cell, "too few for a problem")


# --- kinds of models


@pytest.mark.parametrize(
    "config, says",
    [
        (MambaConfig, "keeps a recurrent state"),
        (lambda **of: Lfm2Config(**of, **MIXED), "keeps a recurrent state"),
        (Gemma2Config, "does more to its logits"),
        (T5Config, "is no causal language model"),
        (BertConfig, "is no causal language model"),
        # As `PegasusForCausalLM`, a decoder alone, is saved: it counts padding among its positions.
        (lambda **of: PegasusConfig(**of, is_encoder_decoder=False), "does not take positions and a key-value cache"),
        (XLNetConfig, "does not take positions and a key-value cache"),
        (OpenAIGPTConfig, "does not take positions and a key-value cache"),
    ],
)
@pytest.mark.parametrize("role", ["student", "teacher", "PRM"])
def test_other_kinds_of_models_are_refused(config, says, role, variant, make_cell, tmp_path):
    regime = {"student": "outcome", "teacher": "distillation", "PRM": "process"}[role]
    cell = make_cell(regime=regime, student=variant("student"))
    where = variant("other")
    config(vocab_size=35).save_pretrained(where)
    refused(replace(cell, **{role.lower(): where}), rf"{role} '.*other' (\([\w-]+\) )?{says}")


@pytest.mark.parametrize(
    "file, change, says",
    [
        ("config.json", {"model_type": "x", "auto_map": {"AutoConfig": "code.Config"}}, "contains custom code"),
        ("config.json", {"quantization_config": {"quant_method": "gptq", "bits": 4}}, "has quantized weights"),
        ("config.json", {"vocab_size": "many"}, "Field 'vocab_size' expected int"),
        ("config.json", {"architectures": ["Qwen3ForTokenClassification"]}, r"\(Qwen3ForTokenC.*is no causal language"),
        ("generation_config.json", {"eos_token_id": "<eos>"}, "in generation_config.json has '<eos>' in it"),
        ("generation_config.json", {"eos_token_id": [[1]]}, r"in generation_config.json has \[1\] in it"),
        ("adapter_config.json", {"peft_type": "LORA"}, "has an adapter beside its weights"),
        ("tokenizer.json", None, "has no tokenizer: none of the files .*tokenizer.json"),
        ("model.safetensors.index.json", {"weight_map": {"a": "gone.safetensors"}}, "No such file .*gone.safetensors"),
        ("model.safetensors.index.json", {"weight_map": {}}, "has no weights"),
        ("model.safetensors.index.json", {}, "KeyError: 'weight_map'"),
    ],
)
def test_files_of_a_checkpoint_that_cannot_be_used_are_refused(file, change, says, variant, make_cell, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asks whether to run a checkpoint's own code"))
    where = Path(variant("student"))
    if change is None:
        (where / "tokenizer_config.json").unlink()
        (where / file).unlink()
    else:
        old = json.loads((where / file).read_text()) if (where / file).is_file() else {}
        (where / file).write_text(json.dumps(old | change))
    if file.startswith("model."):
        (where / "model.safetensors").rename(where / "part.safetensors")
    refused(make_cell(student=str(where)), f"student '.*student'.*{says}")


def test_a_classifier_is_no_process_reward_model_though_its_head_is_tied(variant, make_cell):
    """Its embeddings would serve as the head, and nothing would say so."""
    where = variant("labels")
    AutoModelForTokenClassification.from_pretrained(where, num_labels=2).save_pretrained(where)
    cell = make_cell(regime="process", student=variant("student"), prm=where)
    refused(cell, r"PRM '.*labels' \(Qwen3ForTokenClassification\) is no causal language model")


@pytest.mark.parametrize("role", ["student", "PRM"])
def test_a_tokenizer_of_another_model_is_refused(role, variant, make_cell, reworded):
    """Unless what it has too many of is in no problem, as in a model without weights for its tokenizer's image."""
    more = reworded(("<image>",))
    cell = make_cell(regime="process", student=variant("student"), **SHORT)
    plan.check([replace(cell, **{role.lower(): variant("image", more, vocab_size=len(more) - 1)})])
    where = Path(variant("other", more))
    about = json.loads((where / "config.json").read_text())
    (where / "config.json").write_text(json.dumps(about | {"vocab_size": 34}))
    cell = replace(cell, **{role.lower(): str(where)})
    refused(cell, f"{role} .* has weights for 34 tokens, and a problem of 'chain' has token 34 of its tokenizer")


def test_a_prompt_without_a_token_is_refused(variant, make_cell, reworded, tmp_path):
    rows = [{"problem": text, "answer": "1"} for text in ("1", "~")]
    (tmp_path / "empty.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = reworded()
    words._tokenizer.normalizer = normalizers.Replace("~", "")
    cell = make_cell(student=variant("x", words), prompt_template="{problem}", prompts_per_step=2)
    assert words("~").input_ids == []  # or this test would show nothing
    refused(
        replace(cell, train_data=str(tmp_path / "empty.jsonl")), "a prompt of '.*empty.jsonl' has no token for student"
    )


@pytest.mark.parametrize("role", ["student", "teacher", "PRM"])
def test_weights_that_are_not_there_or_broken_are_refused(role, variant, make_cell):
    regime = {"student": "outcome", "teacher": "distillation", "PRM": "process"}[role]
    cell = make_cell(regime=regime, student=variant("student"))
    weights = Path(variant("other")) / "model.safetensors"
    cell = replace(cell, **{role.lower(): str(weights.parent)})
    weights.write_bytes(weights.read_bytes()[:-1])
    refused(cell, f"cannot load {role} '.*other': ")
    weights.rename(weights.with_suffix(".bin"))
    refused(cell, f"cannot load {role} '.*other': it has no weights")


def test_weights_that_would_be_drawn_at_random_are_refused(variant):
    """A checkpoint without a head, as a model of another task leaves it; a layer and words that its files lack."""
    AutoModel.from_pretrained(variant("headless", kind="llama")).save_pretrained(variant("headless", kind="llama"))
    changes = {"layers": {"num_hidden_layers": 3, "layer_types": ["full_attention"] * 3}, "words": {"vocab_size": 40}}
    for name, change in changes.items():
        config = Path(variant(name)) / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | change))
    for name, weight in (("headless", "lm_head"), ("layers", "model.layers.2.input"), ("words", "model.embed_tokens")):
        where = str(Path(variant("x")).parent / name)
        with pytest.raises(UserError, match=rf"cannot load PRM '.*{name}': its files lack weights .*such as '{weight}"):
            models.load_model(where, "PRM", "float32", CPU)


def test_solutions_with_a_special_token_inside_are_refused(variant, make_cell, tmp_path):
    rows = [{"problem": "1", "answer": "1", "solution": text} for text in ("1<eos>", "<pad>1")]
    (tmp_path / "shown.jsonl").write_text(
        "".join(json.dumps({"id": str(i)} | row) + "\n" for i, row in enumerate(rows))
    )
    how = {"regime": "supervised", "advantage_norm": "none", "train_data": str(tmp_path / "shown.jsonl")}
    cell = make_cell(**how, prompts_per_step=2, student=variant("student"))
    refused(cell, "solution of problem '1' in '.*shown.jsonl' has '<pad>' in it, a special token of student")


def test_regimes_refuse_what_they_cannot_use_before_a_kernel(variant, make_cell):
    cell = make_cell(regime="supervised", student=variant("student"))
    refused(cell, "set advantage_norm=none")
    refused(replace(cell, advantage_norm="none"), "'chain' has problems without")
    refused(
        replace(cell, regime="outcome", eval_data="codebook-4x2-0", eval_problems=4), "cannot be asked for a codebook"
    )


# --- process reward models


def test_a_prm_has_its_tag_and_labels_as_tokens_of_its_own(variant, make_cell, reworded):
    """Such as a byte-level vocabulary, which spells them in several."""
    spelled = reworded(("к", "и"))
    raw = json.loads(spelled._tokenizer.to_str())
    del raw["model"]["vocab"]["ки"]
    raw["pre_tokenizer"]["pattern"]["Regex"] = raw["pre_tokenizer"]["pattern"]["Regex"].replace("|ки", "", 1)
    spelled._tokenizer = type(spelled._tokenizer).from_str(json.dumps(raw))
    cell = make_cell(regime="process", student=variant("student"), prm=variant("prm", spelled, vocab_size=64))
    refused(cell, "PRM .* has no token of its own for 'ки'")


def test_a_prm_without_weights_for_its_tag_is_refused(variant, make_cell, tokenizer):
    tag = tokenizer.convert_tokens_to_ids("ки")
    refused(
        make_cell(regime="process", student=variant("student"), prm=variant("prm", vocab_size=tag)),
        rf"PRM .* has no weights for 'ки'.*: its head has {tag} tokens",
    )


def test_what_a_prm_makes_of_right_and_wrong_answers_is_recorded(variant, make_cell, tmp_path):
    """A random model is at chance."""
    cell = make_cell(regime="process", student=variant("student"), **SHORT)
    run = Run(cell, tmp_path / "random")
    list(train(run))
    found = read_json(run.path / "provenance.json")["run"]["prm_probe"]
    assert found["problems"] == 32 and 6 <= found["right_above_wrong"] < 22


def test_the_probe_counts_right_above_wrong(make_cell, tokenizer):
    cell = make_cell()
    pool, _ = problems.train_pool("chain")
    texts = []

    def same(batch, _):
        texts.extend(batch.texts)
        return on_last_token([0.5] * len(batch.texts), batch)

    def right_answers(reward, cell, pool) -> tuple[int, int]:
        return tuple(probe(reward, cell, tokenizer, pool, CPU)["prm_probe"].values())

    assert right_answers(rewards.load(cell, tokenizer, CPU), cell, pool) == (32, 32)
    assert right_answers(same, cell, pool) == (0, 32)
    shown = [replace(p, solution=f"a1\nThe answer is \\boxed{{{p.answer}}}.") for p in pool]
    texts.clear()
    right_answers(same, replace(cell, max_completion_tokens=60), shown)
    assert all(text.startswith("a1\nThe answer is") for text in texts)
    assert texts[0].removeprefix("a1\nThe") != texts[1].removeprefix("a1\nThe")


# --- vocabularies padded to other widths


@pytest.mark.parametrize("student, teacher", [(48, 35), (35, 48), (48, 40)])
def test_a_head_wider_than_the_teachers_distils_over_the_shared_tokens(student, teacher, variant, make_cell, tmp_path):
    of = {"student": variant("student", vocab_size=student), "teacher": variant("teacher", seed=1, vocab_size=teacher)}
    cell = make_cell(regime="distillation", temperature=1.0, **of, **SHORT)
    run = Run(cell, tmp_path / "runs")
    rows = list(train(run))
    assert len(rows) == 2 and all(row["skipped_updates"] == 0 for row in rows)


def test_deposits_end_where_the_teacher_cannot_read_on(variant, make_cell, make_rollouts, tokenizer):
    """By hand: log π_T − log π_θ up to a token that the teacher's head lacks, nothing from there on."""
    of = {"student": variant("student", vocab_size=48), "teacher": variant("teacher", seed=1)}
    reward = rewards.load(make_cell(regime="distillation", **of), tokenizer, CPU)
    alien = make_rollouts([("1a+1", "2", [[5, 6, 40, 7, 1], [5, 6, 8, 7, 1]])])
    plain = make_rollouts([("1a+1", "2", [[5, 6], [5, 6, 8, 7, 1]])])
    teacher, student = (models.load_model(where, "x", "float32", CPU) for where in (of["teacher"], of["student"]))
    with torch.no_grad():
        got = reward(alien, token_logps(student, alien).logps)
        want = token_logps(teacher, plain).logps - token_logps(student, plain).logps
    assert got.deposit_mask.tolist() == [[True, True, False, False, False], [True] * 5]
    torch.testing.assert_close(got.token_rewards, want, atol=1e-5, rtol=0)
    foreign = replace(plain, prompt_ids=torch.full_like(plain.prompt_ids, 40))  # a prompt that it cannot read at all
    assert not reward(foreign, torch.zeros(plain.completion_ids.shape)).deposit_mask.any()


# --- helpers that would shift


def test_a_value_too_many_or_too_few_is_an_error(rollouts):
    n = len(rollouts.texts)
    for count in (n - 1, n + 1, 0):
        with pytest.raises(ValueError, match=f"{count} values for {n} trajectories"):
            on_last_token([1.0] * count, rollouts)


def test_a_batch_takes_as_many_completions_as_prompts_ask_for(rollouts, tokenizer):
    of = rollouts.problems[0]
    for prompts, completions in ((1, 3), (1, 1), (2, 2)):
        with pytest.raises(ValueError, match=f"{completions} completions of {prompts} prompts to 1 problems"):
            collate([of], [[5]] * prompts, [Completion([6], None, False)] * completions, 2, tokenizer)


def test_deposits_lie_on_the_tokens_of_their_batch(rollouts, make_cell):
    good = on_last_token([1.0] * 4, rollouts)
    credit(good, rollouts, make_cell())
    for cut in (slice(None), slice(0, 2)), (slice(0, 2), slice(None)):
        part = rewards.Deposits(good.token_rewards[cut], good.deposit_mask[cut], dense=False)
        with pytest.raises(ValueError, match=r"deposits are \[\d+, \d+\]: want \[4, 22\], as the rollouts are"):
            credit(part, rollouts, make_cell())
    everywhere = torch.ones(rollouts.completion_mask.shape)
    with pytest.raises(ValueError, match="deposited behind the end of a completion"):
        credit(rewards.Deposits(everywhere, everywhere.bool(), dense=True), rollouts, make_cell())


def test_an_evaluation_of_fewer_completions_is_an_error(make_cell, tokenizer):
    class Loses:
        def sample(self, prompts, **how):
            return [Completion([1], None, False)] * (len(prompts) - 1)

        def sync(self, weights): ...

    with pytest.raises(ValueError, match="shorter"):
        evaluate.greedy(Loses(), problems.held_out("chain", 4), make_cell(), tokenizer)
