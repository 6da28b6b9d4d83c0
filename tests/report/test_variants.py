"""The page on varied settings: tables by seed, and words where there is nothing."""

from fakes import change_metrics, write_cell

from lrd import results
from lrd.analysis.variants import Pair
from lrd.cell import Cell, grid
from lrd.report import variants


def write(root, seed, dtype, right, moved):
    path = write_cell(root, Cell.load("small-bf16", master_dtype=dtype, seed=seed), {0: 5, 10: right})
    change_metrics(path, lambda row: {"weights_moved": moved * row["step"] / 10})


def test_three_seeds(tmp_path):
    for seed, (whole, half) in enumerate([(15, 10), (16, 10), (17, 10)]):
        write(tmp_path, seed, "float32", whole, 0.99)
        write(tmp_path, seed, "bfloat16", half, 0.1 + 0.01 * seed)
    pair = Pair(results.load("small-bf16", tmp_path))
    head, rows = variants.table(pair)
    assert rows[0] == ("0", "0.750", "0.500", "−0.250", "99.0\xa0%", "10.0\xa0%")
    assert rows[-1][3] == "−0.300 [−0.424,\xa0−0.176]"
    assert {len(row) for row in rows} == {len(head)} and head[-1] == "weights moved, bfloat16"
    assert variants.verdict(pair) == (
        "Over 3 seeds, final pass@1 with bfloat16 minus that with float32 is −0.300 [−0.424,\xa0−0.176]. "
        "Of the trained weights 11.0\xa0% differ at the last step from where they began with bfloat16, and 99.0\xa0% "
        "with float32: −88.0 [−90.5,\xa0−85.5] percentage points."
    )


def test_one_seed_gives_no_interval(tmp_path):
    for cell in grid("small-engine"):
        if cell.seed == 0:
            write_cell(tmp_path, cell, {0: 5, 10: 15})
    pair = Pair(results.load("small-engine", tmp_path))
    assert variants.verdict(pair) == "Over 1 seed, final pass@1 with vllm minus that with torch is +0.000."
    head, rows = variants.table(pair)
    assert rows[1] == ("1", "not measured", "not measured", "not measured") and len(head) == 4


def test_not_run(tmp_path):
    pair = Pair(results.load("small-bf16", tmp_path))
    assert variants.verdict(pair) == "Not run: no seed of preset small-bf16 has both cells finished."
    write(tmp_path, 0, "float32", 15, 0.9)
    write(tmp_path, 1, "bfloat16", 15, 0.9)
    pair = Pair(results.load("small-bf16", tmp_path))
    assert variants.verdict(pair).startswith("Not run")
    assert not any("nan" in text for row in variants.table(pair)[1] for text in row)
