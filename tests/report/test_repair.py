"""The page on the collapse under intervention: what its sentences and tables make of the numbers."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from fakes import intervened, legible, write_cell

from lrd import results
from lrd.analysis import interventions, learning_rates
from lrd.analysis.stats import ratio_of_means
from lrd.cell import Cell, grid
from lrd.report import figures, repair
from lrd.report.text import NOTHING

FOUND = intervened(none=(0.8, 5.0), tame=(0.8, 1.0), good=(0.2, 5.0), both=(0.1, 1.0))


def plain(text):
    return text.replace("\N{NO-BREAK SPACE}", " ")


def rows_of(table):
    head, rows = table
    assert {len(row) for row in rows} <= {len(head)}
    return {row[0]: [plain(text) for text in row[1:]] for row in rows}


def test_the_verdict():
    said = repair.verdict(FOUND)
    assert "smaller: tame, both." in said and "loss of pass@1: good, both." in said and "Both: both." in said
    assert "Under both the smallest rank less full fine-tuning is −0.10" in said
    assert "not shown to end higher" not in said
    assert repair.verdict(FOUND[:0]) == "Not run: no cell is finished."
    assert "Both: none." in repair.verdict(FOUND[FOUND.intervention.isin(["none", "tame"])])
    flat = FOUND.assign(final=np.where(FOUND.intervention == "good", 0.0, FOUND.final))
    assert "Of those that lessen it, good is not shown to end higher than none" in repair.verdict(flat)


def test_tables():
    values = rows_of(repair.values(FOUND))
    assert values["both"][0] == "2 of 6" and values["tame"][3] == "1.0 ± 0.0" and next(iter(values)) == "none"
    effects = rows_of(repair.effects(FOUND))
    assert list(effects) == ["tame", "good", "both"] and NOTHING not in effects["tame"]
    assert rows_of(repair.shares(FOUND))["good"] == ["none", "+74 % [+71, +77]", "+75 % [+75, +75]"]
    head, _ = repair.arms(FOUND)
    assert head[1:] == [f"{arm} (100 parameters, 200 bits)" for arm in ("full fine-tuning", "rank 1")]
    assert rows_of(repair.arms(FOUND))["good"] == ["0.800 ± 0.000", "0.700 ± 0.000"]
    assert not any(rows for _, rows in (table(FOUND[:0]) for table in (repair.values, repair.effects, repair.shares)))


def test_percentages():
    assert repair.percentage(None) == NOTHING
    assert plain(repair.percentage(interventions.share(FOUND[FOUND.seed == 1], "good"))) == "+74 %"
    unbounded = ratio_of_means(pd.Series([1.0, 2.0, 3.0]), pd.Series([0.1, 0.1, 4.0]))
    assert plain(repair.percentage(unbounded)) == "+1 % [no bound]"


def test_links():
    found = intervened(**{"none": (0.8, 5.0), "cap": (0.6, 1.0), "canonical": (0.3, 1.0), "outcome": (0.1, 5.0)})
    shift = {"canonical": 0.45, "outcome": 0.45}  # of blindness, from 0.9
    found["blind"] -= found.intervention.map(shift).fillna(0) + 0.001 * found.seed * found.intervention.isin(shift)
    assert [row[0] for row in rows_of(repair.shares(found)).values()] == [
        "less magnitude", "less magnitude and less blindness", "less blindness"
    ]  # fmt: skip
    assert plain(repair.links(found)) == (
        "Repairs shown to lessen magnitude and to move no other link save +24 % [+21, +27] (cap) of the loss. "
        "No repair is shown to lessen length: what it carries cannot be told. Repairs that lessen blindness all move "
        "another link too, and their shares are of both: +61 % [+58, +64] (canonical) of the loss. "
        "Past every link, with gold answers, outcome saves +86 % [+83, +89]."
    )
    useless = found[found.intervention.isin(["none", "cap"])]
    useless = useless.assign(lost=0.8 + 0.1 * useless.seed * (useless.intervention == "cap"))
    assert "Of cap it is not shown that they save any." in repair.links(useless)
    longer = found.assign(length=20.0 + (found.intervention == "cap") * (5 + 0.1 * found.seed))
    assert rows_of(repair.shares(longer))["cap"][0] == "less magnitude and more length"
    assert repair.links(found.assign(lost=0.0)) == "Without a repair nothing is lost that a link could carry."
    assert repair.links(FOUND[:0]) == ""


def test_what_holds():
    assert repair.held(FOUND) == (
        "Cells that lose 0.1 at most from their peak to the last step: of adapters 1 of 3 under both, none under the "
        "others; of full fine-tuning 1 of 3 under both, none under the others."
    )
    kept = FOUND.assign(lost=np.where(FOUND["rank"].isna(), 0.0, FOUND.lost))
    assert repair.held(kept).endswith("none under the others; of full fine-tuning all.")
    assert repair.held(FOUND[FOUND.intervention == "none"]).endswith("of adapters none; of full fine-tuning none.")
    assert repair.held(kept[kept["rank"].isna()]).endswith("last step: of full fine-tuning all.")
    assert repair.held(FOUND[:0]) == ""


def test_adapters_alone():
    full = FOUND["rank"].isna()
    said = "Of the adapters alone: shown to lose less with good and both, and to end higher with good and both."
    assert repair.of_adapters(FOUND) == said
    nothing = repair.of_adapters(FOUND[FOUND.intervention.isin(["none", "tame"])])
    assert nothing.endswith("with none, and to end higher with none.")
    assert repair.of_adapters(FOUND[full]) == repair.of_adapters(FOUND[:0]) == ""


def test_the_rank_axis(tmp_path):
    """Rank 4 ends 0.05, 0.00 and 0.05 higher: half the interval is 4.303 · 0.0289 / √3 = 0.07. Rank 16 has one seed."""
    plan = {1: (4, 6, 8), 4: (9, 10, 13), 16: (20,), 64: (9, 11, 13), None: (8, 10, 12)}
    for rank, right in plan.items():
        for seed, n in enumerate(right):
            write_cell(tmp_path, Cell.load("pace-ranks", rank=rank, seed=seed), {0: 5, 10: n})
    found = results.load("pace-ranks", tmp_path)
    assert repair.rank_verdict(found) == (
        "Of all ranks, those whose interval against full fine-tuning excludes zero: rank 1 ends below it under "
        "process; rank 64 ends above it under process. By the widest interval a difference below 0.07 could not be "
        "told from none."
    )
    rows = rows_of(repair.ranks(found))
    assert rows["rank 1"] == ["0.300 ± 0.100", "−0.200 [−0.200, −0.200]", "0.00"]
    assert rows["full fine-tuning"] == ["0.500 ± 0.100", "", ""]
    assert rows["rank 16"] == ["1.000", "+0.600", ""] and rows["rank 256"] == [NOTHING, "", ""]  # one seed, and none
    assert list(rows) == [*(f"rank {rank}" for rank in (1, 4, 16, 64, 256)), "full fine-tuning"]
    unrun = results.load("pace-ranks", tmp_path / "none")
    assert repair.rank_verdict(unrun) == "Not run: no rank has an interval."
    assert repair.settings("repair-ranks") == "deposit_rule = minimum, prm_reads = canonical"


def test_two_testbeds(tmp_path):
    plan = {"none": 2, "mean-to-go": 2, "canonical": 18, "minimum": 18}  # right at the end, of 20
    for preset, change in (("repair", {"minimum": 2}), ("repair-small", {"canonical": 2})):
        for name, right in (plan | change).items():
            for seed in range(3):
                cell = Cell.load(preset, rank=1, seed=seed, repair=name)
                size = 0.1 if name == "mean-to-go" else 1.0
                write_cell(tmp_path, cell, {0: 5, 10: 18, 20: right}, advantage_std=size + 0.001 * seed)
    first, second = (results.load(name, tmp_path) for name in ("repair", "repair-small"))
    assert repair.across(first, second) == (
        "With 12 of 63 cells on the testbed small, and of the repairs that both testbeds have, those that are shown to "
        "lessen the loss of pass@1 on both: none; on tiny alone: canonical; on small alone: minimum. Those that make "
        "the advantages smaller on both and are shown to lessen it on neither: mean-to-go."
    )
    unrun = results.load("repair-small", tmp_path / "none")
    assert repair.across(first, unrun) == "On the testbed small they have not been run."
    write_cell(tmp_path / "one", Cell.load("repair-small", rank=1, seed=0, repair="none"), {0: 5, 20: 2})
    few = repair.across(first, results.load("repair-small", tmp_path / "one"))
    assert few == "On tiny or small too few cells are finished for an interval."


@pytest.fixture
def slowed(tmp_path):
    early, later = {0: 8, 40: 18, 80: 2, 120: 1, 240: 0}, {0: 8, 40: 12, 80: 18, 120: 18, 160: 3, 240: 2}
    keeps = {0: 8, 40: 18, 80: 18, 120: 17, 240: 16}  # of 20 problems
    plan = {"rank-16": [early] * 3, "rank-16-third": [early, later, later], "rank-16-tenth": [later] * 3}
    plan |= {"full": [early, keeps, keeps], "full-third": [keeps, keeps, later], "full-tenth": [keeps] * 3}
    for cell in grid("pace"):
        write_cell(tmp_path, cell, plan[cell.point["pace"]][cell.seed])
    return results.load("pace", tmp_path)


def test_learning_rates(slowed, tmp_path):
    assert repair.rate_verdict(slowed) == (
        "By step 80 every cell of rank-16 has collapsed. By step 80 some cells of rank-16-third have, and all have by "
        "step 240. By step 80 some cells of full have, and not all have by step 240. Of rank-16-tenth none has by "
        "then, and all have by step 240. Of full-third none has by then, and some have by step 240. Of full-tenth "
        "none has by step 240."
    )
    assert repair.rate_verdict(results.load("pace", tmp_path / "none")) == "Not run: no cell is finished."
    rows = rows_of(repair.rates(learning_rates.with_rates(slowed)))
    assert rows["rank-16"] == "0.001|0.90 ± 0.00|0.10 ± 0.00|0.00 ± 0.00|3 of 3|3 of 3|80, 80, 80".split("|")
    assert rows["full-tenth"][-3:] == ["0 of 3", "0 of 3", "none"] and rows["full-third"][-1] == "160"


def test_the_figure_of_interventions_and_of_none():
    for found in (FOUND, FOUND[:0]):
        figure = figures.repairs(found)
        legible(figure)
        said = [text.get_text() for text in figure.legends[0].get_texts()]
        assert said == (["rank 1", "FullFT"] if len(found) else [])
        plt.close(figure)
    full = [line for line in figures.repairs(FOUND).axes[1].lines if line.get_marker() == figures.FULL_MARKER]
    assert [list(line.get_ydata()) for line in full] == [[i] for i in range(4) for _ in range(3)]
    bars = [line.get_xdata() for line in figures.repairs(FOUND).axes[1].lines if len(line.get_xdata()) == 2]
    adapters = np.array([[0.1] * 2, [0.1] * 2, [0.7] * 2, [0.8] * 2])  # without the 0.1 that FullFT has more
    assert np.array(bars) == pytest.approx(adapters)
    assert [t.get_text() for t in figures.repairs(FOUND).axes[0].get_yticklabels()] == ["none", "tame", "good", "both"]
