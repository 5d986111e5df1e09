"""What alignment changed: held-out evaluation, paired intervals, comparisons, the HTML report and the model card.

| file | does |
|---|---|
| `evaluate.py` | a policy on prompts with any rewards → `Evaluation` |
| `records.py` | `Evaluation` and its files |
| `bootstrap.py` | intervals, by resampling prompts |
| `table.py` | before and after → `SummaryRow`s, `summary.json`, a table |
| `compare.py` | two runs, prompt by prompt |
| `samples.py` | what a policy makes in the middle of a run |
| `run_record.py` | what a run directory holds |
| `report/` | one self-contained HTML file per run directory |
| `card.py` | its README.md |
"""
