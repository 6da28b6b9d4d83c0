"""The words and tables of the page that sets reruns beside the published runs."""

from collections import Counter

from lrd.analysis.again import ACCURACY, COMPARED, MAGNITUDE, ROLES, Comparison, Reading, Rerun
from lrd.report.display import link, number_or_dash
from lrd.report.text import NOTHING, counted, listed, mean_sd, percent
from lrd.results import Results


def glued(compared: Comparison) -> dict[str, str]:
    """Keyed by the names that they are glued under."""
    return {
        "preset": compared.results.preset,
        "accuracy": f"{ACCURACY:g}",
        "magnitude": percent(MAGNITUDE),
        "verdict": verdict(compared),
        "why": why(compared),
    }


def verdict(compared: Comparison) -> str:
    """How many cells are the same, within tolerance and apart, in one sentence."""
    preset = compared.results.preset
    if not compared.published:
        return f"No runs of {preset} are published to compare with."
    if not len(compared.results.finished):
        return f"No cell of {preset} has finished here, so that there is nothing to compare."
    counts = Counter(reading for reading, _ in compared.readings.values())
    comparable = sum(counts[reading] for reading in COMPARED)
    return (
        f"Of {counted(comparable, 'cell')} that can be compared, {counts[Reading.SAME]} are the same to the last "
        f"digit, {counts[Reading.WITHIN]} within tolerance and {counts[Reading.APART]} apart; "
        f"{counts.total() - comparable} cannot be compared."
    )


def why(compared: Comparison) -> str:
    """What can have made a difference, of what was recorded, as sentences; nothing where there is none."""
    if not {Reading.WITHIN, Reading.APART} & {reading for reading, _ in compared.readings.values()}:
        return ""
    if models := [name for name in compared.differing if name in ROLES]:
        return (
            f"The models are not the published ones ({listed(models)}). They are trained from scratch on each "
            "machine, and another processor or another PyTorch rounds their arithmetic otherwise, so that a cell "
            "here does not begin where the published one began. Compare regimes, not cells."
        )
    if compared.differing:
        return (
            f"The models are the published ones; what differs is: {listed([*compared.differing])}. A last digit that "
            "is rounded otherwise changes a sampled token sooner or later, and from there on a run takes another way: "
            "most under a reward that makes training unstable."
        )
    return (
        "Nothing that is recorded differs, neither models, nor versions, nor processor. What is left is what no "
        "record holds, such as a library of the operating system or a change of the code that was not committed."
    )


def rows(compared: Comparison) -> list[tuple[str, ...]]:
    """One row a cell, in the matrix's order: yours, the published in brackets, and how to read it."""
    rows, (ours, theirs) = [], compared.numbers
    states = compared.results.cells.set_index("cell").state
    for cell, (reading, apart) in compared.readings.items():
        pairs = [f"{_number(here)} ({_number(there)})" for here, there in zip(ours.loc[cell], theirs.loc[cell])]
        text = reading.value
        if reading is Reading.APART:
            text += f": {', '.join(name.replace('_', ' ') for name in apart)}"
        elif reading is Reading.UNFINISHED:
            text = states[cell] if states[cell] != "finished" else "not evaluated"
        rows.append((link(compared.results, cell), *pairs, text))
    return rows


def regimes(compared: Comparison) -> list[tuple[str, ...]]:
    """One row a regime: final pass@1 of all of its cells, mean ± sd, published and yours."""
    rows, finished, (_, theirs) = [], compared.results.finished, compared.numbers
    for regime in compared.results.regimes:
        published = theirs.final[(compared.results.cells.regime == regime).to_numpy()]
        rows.append((regime, mean_sd(published), mean_sd(finished.final[finished.regime == regime])))
    return rows


def differing(compared: Comparison) -> list[tuple[str, str, str]]:
    """What the runs rest on and do not share: its name, the published values and compared."""
    return [
        (name, ", ".join(theirs) or "none", ", ".join(ours) or "none")
        for name, (theirs, ours) in compared.differing.items()
    ] or [("nothing that is recorded", "–", "–")]


def rerun_rows(again: Results, compared: list[Rerun]) -> list[tuple[str, ...]]:
    """One row a cell that ran twice: both finals, how long all digits agree, the largest difference, its reading."""
    rows = []
    for each in compared:
        name = link(again, each.cell)
        if each.reading is Reading.UNFINISHED:
            rows.append((name, *[NOTHING] * 4, "first: {}, again: {}".format(*each.states)))
        else:
            agree = f"step {each.agree}" if each.agree else "none"
            rows.append((name, *map(_number, each.finals), agree, _number(each.gap), each.reading.value))
    return rows


def _number(x: float) -> str:
    return number_or_dash(x, 3)
