"""The start page's headline numbers from the raw records of `runs/fair`, with nothing of this project's code.

    python tests/recompute.py [runs]

Prints, reward by reward: pass@1 of full fine-tuning and the mean of all adapters, both at the step of the highest
validation pass@1; adapters minus full there and at the last step; the slope over log2 of the rank.
"""

import json
import lzma
import re
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np


def rows(path):
    packed = path.with_name(f"{path.name}.xz")
    return map(json.loads, (lzma.open(packed) if packed.exists() else path.open("rb")))


def curve(path):
    right = defaultdict(list)
    for row in rows(path):
        right[row["step"]].append(row["correct"])
    return {step: float(np.mean(each)) for step, each in sorted(right.items())}


def numbers(runs):
    chosen, last = defaultdict(list), defaultdict(list)  # reward and rank → pass@1 of its cells
    for done in sorted(Path(runs, "fair").glob("*/done.json")):
        reward, rank = re.match(r"(\w+)-r?(\w+)-", done.parent.name).groups()
        test, validation = (curve(done.with_name(f"{name}.jsonl")) for name in ("evals", "validation"))
        chosen[reward, rank].append(test[max(validation, key=validation.get)])
        last[reward, rank].append(test[max(test)])
    ranks = sorted({int(rank) for _, rank in chosen if rank != "full"})
    found = {}
    for reward in dict.fromkeys(reward for reward, _ in chosen):
        means = [[np.mean(of[reward, str(rank)]) for rank in ranks] for of in (chosen, last)]
        full = [np.mean(of[reward, "full"]) for of in (chosen, last)]
        slope = np.polyfit(np.log2(ranks), means[0], 1)[0]
        found[reward] = [full[0], np.mean(means[0]), *np.mean(means, 1) - full, slope]
    return found


if __name__ == "__main__":
    for reward, values in numbers(*sys.argv[1:] or ["runs"]).items():
        print(reward, *(f"{value:+.6f}" for value in values))
