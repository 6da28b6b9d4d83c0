"""The table of the baseline notebook, which the setup page shows too."""

import pandas as pd

from lrd.analysis import baseline


def pass_at_k(frame: pd.DataFrame) -> pd.DataFrame:
    """Greedy pass@1 and unbiased pass@k of each model, with the standard error over problems in brackets."""
    scores = baseline.scores(frame)
    names = dict.fromkeys(name for name, _ in scores.columns)
    cells = {
        name: [f"{m:.3f} ({e:.3f})" for m, e in zip(scores[name, "mean"], scores[name, "error"])] for name in names
    }
    return pd.DataFrame(cells, index=scores.index.tolist())
