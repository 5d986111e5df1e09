"""How well a scorer ranks outputs whose worth is known: pairs, best of N, and RewardBench 2's ties.

Rows are held-out preferences, or prompts of a file with these columns (JSONL, parquet; outputs are texts, pictures or
sounds):

    prompt     the request
    chosen     a right answer, or a list of equally right ones
    rejected   a wrong answer, or a list of them
    subset     optional: the domain it is counted in; "Ties" marks rows of the ties rule
    sample     optional: rows of one sample, which count together in acc_plus
    reversal   optional: rows of one name, which a context turns round
    near       optional: a prompt that nearly says the same, or a list: for it the right output is wrong; a text, or
               {prompt, meta}, whose columns are its own
    id         of rows of the ties rule: "ref:7" (one right answer) and "tied:7" (several) belong together

| name | rows | rule |
|---|---|---|
| accuracy | all | share of (chosen, rejected) pairs ranked right, equal scores half; parts: mean scores and margin |
| best_of_4 | one chosen, three others (best_of_N) | 1 if the chosen one alone is highest, 1/k if k share that, else 0 |
| ties | each "tied" row with its "ref" row | see `rankings.ties_score` |
| mrr, ndcg | more than one wrong output, or right one | see `listwise` |
| c_ins, c_res | `near` prompts | share of near prompts, of wrong outputs, for which the right pair scores higher |
| acc_plus | `sample` | 1 if all pairs of all its rows are ranked right (MM-RLHF); it stands on the first of them |
| reversal | `reversal` | the same of rows that a context turns round |
| …/subset | of one subset, where there are several | the same |
| macro | all, where there are several subsets | unweighted mean over subsets of accuracy |
| rewardbench2 | every row, where all are best-of-N or ties | unweighted mean over subsets |
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmalign.core.errors import DataError
from mmalign.core.protocols import Scoring
from mmalign.core.rng import stream_seed
from mmalign.core.types import Audio, Preference, Prompt, Scores, Status, groups, join
from mmalign.evaluation.evaluate import SET_RESAMPLES, Share, eval_mode
from mmalign.evaluation.judged_rules import TIES, Ranked, judged_rules, near_prompts, scores_of
from mmalign.evaluation.listwise import macro_mean
from mmalign.evaluation.rankings import auc, best_of_n, ties_score
from mmalign.evaluation.records import Evaluation, RowScores, SetValue
from mmalign.media.image import to_uint8

__all__ = ["judge", "judge_shared"]


def judge(
    policy: Scoring, items: Sequence[Preference | Prompt], *, seed: int = 0, rows: int = 64, keep: int = 16
) -> Evaluation:
    """Score every output of every row, and score the scores; no gradient.

    Args:
        policy: its module is in evaluation mode meanwhile.
        items: preferences, or prompts whose `meta` holds the columns above.
        seed: of the resamples.
        rows: outputs per call.
        keep: pictures kept in the result; its outputs are the ones the scorer likes best (texts: all).

    Raises:
        DataError: no rows; a row without its columns; a "tied" row without its "ref" row.
    """
    evaluation = judge_shared(policy, items, Share(), seed=seed, rows=rows, keep=keep)
    assert evaluation is not None, "the only process is the first"
    return evaluation


def judge_shared(
    policy: Scoring,
    items: Sequence[Preference | Prompt],
    share: Share,
    *,
    seed: int = 0,
    rows: int = 64,
    keep: int = 16,
) -> Evaluation | None:
    """`judge` by several processes, the calls dealt out in turn; the first returns it, the others None.

    The calls are those of one process, so the scores are too. Every process meets the faults of the rows.
    """
    start = time.perf_counter()
    if not items:
        raise DataError("there are no comparisons to judge; set data.held_out, data.held_out_path or --prompts.")
    ranked = [_read(number, item) for number, item in enumerate(items)]
    _score(policy, ranked, rows, share)
    scores = _rules(ranked)
    if share.rank:
        return None
    return Evaluation(
        modality=policy.modality,
        prompts=[replace(row.prompt, meta=_facts(row)) for row in ranked],
        group=groups([row.prompt for row in ranked]).numpy(),
        scores={name: RowScores.of(rule_scores) for name, rule_scores in (scores | _by_subset(ranked, scores)).items()},
        sets=_benchmark(ranked, scores, seed),
        outputs=_picked(ranked, keep),
        seed=seed,
        rows=rows,
        repeats=1,
        seconds=time.perf_counter() - start,
    )


def _read(number: int, item: Preference | Prompt) -> Ranked:
    if isinstance(item, Preference):
        return Ranked(item.prompt, [item.chosen], [item.rejected], [])
    sides = {name: item.meta.get(name) for name in ("chosen", "rejected")}
    for name, value in sides.items():
        outputs = value if isinstance(value, list | tuple) else [value]
        if not outputs or not all(isinstance(output, str | Tensor | Audio) for output in outputs):
            columns = ", ".join(map(str, item.meta)) or "nothing"
            raise DataError(
                f"row {number} ('{item.text[:40]}'): '{name}' is {str(value)[:60]!r}; expected a text or a list of "
                f"texts. Its other columns: {columns}."
            )
        sides[name] = list(outputs)
    return Ranked(item, sides["chosen"], sides["rejected"], [])  # type: ignore[arg-type]


def _score(policy: Scoring, ranked: Sequence[Ranked], rows: int, share: Share) -> None:
    """Fill in every row's scores, in every process."""
    pairs = [(row.prompt, output) for row in ranked for output in (*row.chosen, *row.rejected)]
    pairs += [(near, row.chosen[0]) for row in ranked for near in near_prompts(row.prompt)]
    places = [row.scores for row in ranked for _ in (*row.chosen, *row.rejected)]
    places += [row.near for row in ranked for _ in near_prompts(row.prompt)]
    own: list[tuple[int, list[float]]] = []
    with torch.no_grad(), eval_mode(getattr(policy, "module", None)):
        for first in range(0, len(pairs), rows)[share.rank :: share.processes]:
            own.append((first, _scored(policy, pairs[first : first + rows])))
            if share.progress:
                share.progress(min(len(pairs), len(own) * share.processes * rows), len(pairs))
    calls = sorted(call for part in share.gather(own) for call in part)
    scores = [score for _, call in calls for score in call]
    for place, score in zip(places, scores, strict=True):
        place.append(score)


def _scored(policy: Scoring, part: Sequence[tuple[Prompt, Any]]) -> list[float]:
    prompts, outputs = [prompt for prompt, _ in part], [output for _, output in part]
    if len({_shape(output) for output in outputs}) > 1:
        return [value for one in part for value in _scored(policy, [one])]
    return policy.score(policy.observe(prompts, _batch(outputs))).double().tolist()


def _shape(output: Any) -> tuple[Any, ...]:
    """What outputs of one call have in common."""
    if isinstance(output, Audio):
        return (*output.samples.shape, output.rate, output.mask is None)
    return tuple(output.shape) if isinstance(output, Tensor) else ()


def _batch(outputs: Sequence[Any]) -> Any:
    if isinstance(outputs[0], Tensor):
        return torch.stack(list(outputs))
    return join(outputs) if isinstance(outputs[0], Audio) else list(outputs)


def _rules(ranked: Sequence[Ranked]) -> dict[str, Scores]:
    """Every rule that applies to any row; the other rows are not applicable."""
    scores = {"accuracy": _accuracy(ranked)}
    for count in sorted({row.count for row in ranked} - {0}):
        fits = [row.count == count for row in ranked]
        scores[f"best_of_{count}"] = scores_of(ranked, fits, lambda row: best_of_n(row.good[0], row.bad))
    if any(row.subset == TIES for row in ranked):
        scores["ties"] = _ties(ranked)
    return scores | judged_rules(ranked)


def _accuracy(ranked: Sequence[Ranked]) -> Scores:
    means = {
        "chosen": lambda row: np.mean(row.good),
        "rejected": lambda row: np.mean(row.bad),
        "margin": lambda row: np.mean(row.good) - np.mean(row.bad),
    }
    parts = {name: torch.tensor([float(mean(row)) for row in ranked]) for name, mean in means.items()}
    scores = scores_of(ranked, [True] * len(ranked), lambda row: auc(row.good, row.bad))
    scores.parts = parts
    return scores


def _ties(ranked: Sequence[Ranked]) -> Scores:
    """The rule's value stands on the "tied" row of each pair."""
    rows = {_id(number, row): row for number, row in enumerate(ranked) if row.subset == TIES}
    kinds = {number for kind, number in rows}
    if lonely := sorted(n for n in kinds if len({("ref", n), ("tied", n)} & rows.keys()) < 2):
        raise DataError(f"rows of subset {TIES}: id {lonely[0]} needs both 'ref:{lonely[0]}' and 'tied:{lonely[0]}'.")
    references = {id(rows["tied", n]): rows["ref", n] for n in kinds}

    def parts(row: Ranked) -> Any:
        other = references[id(row)]
        return ties_score((other.good, other.bad), (row.good, row.bad))

    fits = [id(row) in references for row in ranked]
    scores = scores_of(ranked, fits, lambda row: parts(row).score, beside=lambda row: references[id(row)].scores)
    terms = [parts(row)._asdict() if fit else {} for row, fit in zip(ranked, fits, strict=True)]
    names = next(iter(part for part in terms if part))
    scores.parts = {name: torch.tensor([part.get(name, float("nan")) for part in terms]) for name in names}
    return scores


def _id(number: int, row: Ranked) -> tuple[str, str]:
    kind, _, name = str(row.prompt.meta.get("id", "")).partition(":")
    if kind not in ("ref", "tied") or not name:
        raise DataError(
            f"row {number} ('{row.prompt.text[:40]}'): id is {row.prompt.meta.get('id')!r}; rows of subset {TIES} are "
            "called 'ref:…' and 'tied:…'."
        )
    return kind, name


def _by_subset(ranked: Sequence[Ranked], scores: Mapping[str, Scores]) -> dict[str, Scores]:
    subsets = dict.fromkeys(row.subset for row in ranked if row.subset)
    by_subset = {}
    for subset in subsets if len(subsets) > 1 else ():
        inside = torch.tensor([row.subset == subset for row in ranked])
        for name, rule_scores in scores.items():
            applies = inside & (rule_scores.status != Status.NOT_APPLICABLE)
            if bool(applies.any()) and not (name == "ties" or (name == "accuracy" and subset == TIES)):
                status = torch.where(applies, rule_scores.status, int(Status.NOT_APPLICABLE)).to(torch.int8)
                by_subset[f"{name}/{subset}"] = Scores(rule_scores.value.where(applies, torch.nan), status)
    return by_subset


def _benchmark(ranked: Sequence[Ranked], scores: Mapping[str, Scores], seed: int) -> dict[str, SetValue]:
    """Unweighted means over subsets, resampled inside each: of accuracy, and RewardBench 2's where its rules fit."""
    if len({row.subset for row in ranked}) < 2:
        return {}
    sets = {"macro": _macro(ranked, [scores["accuracy"]], seed)}
    if all(row.subset == TIES or row.count for row in ranked):
        rules = [rule for name, rule in scores.items() if name.startswith("best_of_") or name == "ties"]
        sets["rewardbench2"] = _macro(ranked, rules, seed)
    return sets


def _macro(ranked: Sequence[Ranked], rules: Sequence[Scores], seed: int) -> SetValue:
    value = torch.stack([torch.where(rule.valid, rule.value, torch.nan) for rule in rules]).nan_to_num(0).sum(0)
    known = torch.stack([rule.valid for rule in rules]).any(0)
    names = [row.subset for row in ranked]
    inside = {subset: torch.tensor([name == subset for name in names]) & known for subset in sorted(set(names))}
    values = {subset: value[rows].double().numpy() for subset, rows in inside.items() if bool(rows.any())}
    rng = np.random.default_rng(stream_seed(seed, "bootstrap"))
    drawn = [np.mean([rng.choice(v, len(v)).mean() for v in values.values()]) for _ in range(SET_RESAMPLES)]
    return SetValue(macro_mean({name: v.tolist() for name, v in values.items()}), np.asarray(drawn), int(known.sum()))


def _facts(row: Ranked) -> dict[str, Any]:
    """What the record says of a row beside its rules: every column but the outputs, and all scores."""
    columns = {name: value for name, value in row.prompt.meta.items() if name not in ("chosen", "rejected")}
    sides = {"chosen": row.good, "rejected": row.bad} | ({"near": row.near} if row.near else {})
    return columns | {"scores": {name: [v if np.isfinite(v) else None for v in side] for name, side in sides.items()}}


def _picked(ranked: Sequence[Ranked], keep: int) -> Any:
    """What the scorer likes best in each row: every text, or the first pictures if they are of one size."""
    picks = [row.pick for row in ranked]
    if isinstance(picks[0], Audio):
        return join(picks[:keep]) if len({_shape(pick) for pick in picks[:keep]}) == 1 else picks[0][:0]
    if not isinstance(picks[0], Tensor):
        return picks
    sizes = {tuple(pick.shape) for pick in picks[:keep]}
    return to_uint8(torch.stack(picks[:keep])).numpy() if len(sizes) == 1 else np.empty(0, dtype=np.uint8)
