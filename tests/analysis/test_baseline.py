"""The base models before any training: the numbers by hand."""

import pandas as pd

from lrd import results
from lrd.analysis import baseline
from lrd.report.baseline import pass_at_k


def test_a_baseline_in_numbers(tmp_path):
    rows = []
    for model, greedy, hits in (("student", [1, 0], [1, 2]), ("teacher", [1, 1], [2, 2])):
        for i in range(2):
            row = {
                "model": model,
                "problem": f"p{i}",
                "level": 3 + i,
                "subject": "Algebra",
                "length": 5,
                "answered": 1,
                "truncated": 0,
            }
            rows.append(row | {"sample": "greedy", "correct": greedy[i]})
            rows += [row | {"sample": str(s), "correct": int(s < hits[i])} for s in range(2)]
    assert results.baseline("tiny", tmp_path) is None
    path = tmp_path / "tiny" / "baseline" / "samples.jsonl"
    path.parent.mkdir(parents=True)
    pd.DataFrame(rows).to_json(path, orient="records", lines=True)
    frame = results.baseline("tiny", tmp_path)
    # student: pass@1 (1/2 + 1) / 2, pass@2 (1 + 1) / 2; teacher always right
    assert baseline.gaps(frame) == {"k": 2, "exploration": 0.25, "teacher": 0.5, "teacher_sampled": 0.25}
    means, errors = (baseline.scores(frame).xs(part, axis=1, level=1) for part in ("mean", "error"))
    assert means.columns.tolist() == ["greedy", "pass@1", "pass@2"]
    assert means.loc["student"].tolist() == [0.5, 0.75, 1] and errors.loc["student"].tolist() == [0.5, 0.25, 0]
    assert pass_at_k(frame).loc["student"].tolist() == ["0.500 (0.500)", "0.750 (0.250)", "1.000 (0.000)"]
    assert baseline.pass_at_1_by(frame, "level").loc[3, ("student", "pass@1")] == 0.5
    assert baseline.pass_at_1_by(frame, "subject").loc["Algebra", ("problems", "")] == 2
    path.write_text("garbage")
    assert results.baseline("tiny", tmp_path) is None
