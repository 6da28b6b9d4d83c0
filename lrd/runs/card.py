"""The model card of a run, in the Hub's format: `README.md` beside the trained weights, ready to be pushed."""

from typing import Any

from lrd import __version__
from lrd.cell import Cell
from lrd.names import on_hub

VERSIONS = ("torch", "transformers", "peft")


def card(cell: Cell, before: dict[str, float], after: dict[str, float], record: dict[str, Any]) -> str:
    """The card as Markdown, from the greedy evaluations before and after training and the run's `provenance.json`."""
    full, about = cell.rank is None, record.get("run", {})
    fingerprint = about.get("models", {}).get("student")
    commit, packages = (record.get("git") or {}).get("sha"), record.get("packages", {})
    head = ["library_name: " + ("transformers" if full else "peft"), "pipeline_tag: text-generation"]
    head += [f"base_model: {cell.student}"] if on_hub(cell.student) else []
    head += ["tags:", *(f"- {tag}" for tag in ("grpo", "lrd", *([] if full else ["lora"])))]
    rows = {
        "base model": f"`{cell.student}`" + (f" ({fingerprint})" if fingerprint else ""),
        "regime": f"`{cell.regime}`",
        "rank": "full fine-tuning" if full else f"{cell.rank} (lora_alpha {cell.lora_alpha:g})",
        "adapted layers": "all weights" if full else ", ".join(cell.lora_targets),
        "trained parameters": f"{about.get('trainable_parameters', 'unknown')}",
        "learning rate": f"{cell.learning_rate:g} ({cell.lr_schedule})",
        "steps": f"{cell.steps}, each of {cell.prompts_per_step} × {cell.samples_per_prompt} completions",
        "seed": f"{cell.seed}",
        "trained on": f"`{cell.train_data}`",
        "evaluated on": f"{cell.eval_problems} problems of `{cell.eval_data}`, greedily",
        "prompt": f"`{cell.prompt_template!r}`",
        **{f"{name} before": f"{value:.4f}" for name, value in before.items() if value == value},  # NaN: no gold answer
        **{f"{name} after": f"{value:.4f}" for name, value in after.items() if value == value},
        "preset": f"`{cell.preset}`",
        "versions": ", ".join(
            [f"lrd {__version__}" + (f" ({commit[:12]})" if commit else "")]
            + [f"{name} {packages[name]}" for name in VERSIONS if name in packages]
        ),
    }
    what = "The weights" if full else f"A LoRA adapter of rank {cell.rank}"
    table = [f"| {key} | {value.replace('|', chr(92) + '|')} |" for key, value in rows.items()]
    text = [f"{what} of `{cell.student}`, trained by GRPO with the reward `{cell.regime}`."]
    return "\n".join(["---", *head, "---", "", f"# {cell.name}", "", *text, "", "| | |", "|---|---|", *table, ""])
