"""A matrix that varies one setting: differences paired by seed, by hand."""

import pytest
from fakes import change_metrics, write_cell

from lrd import results
from lrd.analysis.variants import MOVED, Pair
from lrd.cell import Cell


def test_pairs_by_seed(tmp_path):
    for seed, right in enumerate([15, 16, 17]):
        for dtype, n, moved in (("float32", right, 0.99), ("bfloat16", 10, 0.1 + 0.01 * seed)):
            if (seed, dtype) != (2, "bfloat16"):
                path = write_cell(tmp_path, Cell.load("small-bf16", master_dtype=dtype, seed=seed), {0: 5, 10: n})
                change_metrics(path, lambda row, moved=moved: {MOVED: moved * row["step"] / 10})
    pair = Pair(results.load("small-bf16", tmp_path))
    assert pair.axis == "master_dtype" and pair.values == ["float32", "bfloat16"]
    assert pair.by_seed("final").iloc[0].tolist() == [0.75, 0.5]
    assert pair.by_seed("final").isna().sum().tolist() == [0, 1]
    assert pair.by_seed(MOVED).iloc[1].tolist() == pytest.approx([0.99, 0.11])  # at the last step
    d = pair.difference("final")
    assert d is not None and (d.mean, d.n) == (pytest.approx(-0.275), 2)  # −0.25 and −0.30: sd 0.0354
    assert d.high - d.mean == pytest.approx(12.706 * 0.025, rel=1e-3)
    assert Pair(results.load("small-bf16", tmp_path / "none")).difference("final") is None
