"""Every figure of the study: a function takes a frame and returns a Figure, so that notebooks and tests draw the same.

`curves` are over the steps, `sizes` against what an adapter has, `collapse` of the process reward's end, `method` of
how it is done, `starts` of a pretrained model's trials. Notebooks that make runs have theirs in `report.run_figures`.
"""

# ruff: noqa: F401

from lrd.report.figures.collapse import lead_lag, onset_order, repairs
from lrd.report.figures.curves import by_rate, every_cell, learning_curves
from lrd.report.figures.fair import difference_curves, forest
from lrd.report.figures.method import data_flow, step_times
from lrd.report.figures.sizes import budget, differences, law, rank_curves
from lrd.report.figures.starts import starts
