"""Any reward on a bench: rows whose better output is known, scored by a rule, a judge or a fitted model."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmalign.core.errors import CapabilityError, ConfigError, DataError, all_faults
from mmalign.core.types import Modality, Output, Prompt, Rollout, Scores, modality_of
from mmalign.data.column_rows import ColumnRows
from mmalign.data.lazy_media import LazyMedia, kind_of
from mmalign.data.messages import is_messages
from mmalign.data.renamed_columns import with_columns
from mmalign.data.sources.prompts import Prompts
from mmalign.data.table import Table
from mmalign.data.tables import read_table
from mmalign.evaluation.benchmarks import as_comparisons, layout_of
from mmalign.evaluation.records import Evaluation

__all__ = ["RewardScorer", "judge_reward", "measured", "read_comparisons", "reward_of"]


@dataclass
class RewardScorer:
    """A reward as the `ScorePolicy` that `evaluation.judging` measures: its score is the reward's value.

    A row without a value (an error, not applicable) has the score NaN, which is counted as an error of the bench's row;
    an output that cannot be read has the floor of the range, as in training.

    Args:
        reward: of rows.
        modality: of the outputs.
    """

    reward: Any
    modality: Modality

    def observe(self, prompts: Sequence[Prompt], outputs: Output) -> Rollout:
        """Given outputs as a rollout."""
        return Rollout.of(list(prompts), outputs)

    def score(self, rollout: Rollout) -> Float[Tensor, " B"]:
        """The values (B,) of the rows, on the CPU."""
        scores: Scores = self.reward(rollout)
        return scores.value.detach().float().cpu()


def read_comparisons(file: str, columns: Mapping[str, str] | None = None, limit: int = 0) -> list[Prompt]:
    """The rows of a benchmark's file, with outputs decoded; see `evaluation.benchmarks` and `evaluation.judging`.

    Outputs that name a picture or a sound are that; `image` and `audio` are what the prompt is about.

    Args:
        file: JSONL, JSON, CSV or parquet, or `hub:owner/name`.
        columns: other names for its columns, as `data.columns`.
        limit: rows read; 0: all.

    Raises:
        DataError: an unknown layout, or rows that cannot be read, all at once.
    """
    table = with_columns(read_table(file), dict(columns or {}))
    layout = layout_of(table.columns, table.file)
    count = min(limit or len(table.rows), len(table.rows))
    rows: list[dict[str, Any]] = []
    places: list[str] = []
    faults = []
    for at in range(count):
        try:
            made = as_comparisons(layout, _row(table, at), table.place(at))
            rows += made
            places += [table.place(at)] * len(made)
        except DataError as error:
            faults.append(str(error))
    if faults:
        raise all_faults(faults)
    names = list(dict.fromkeys(name for row in rows for name in row))
    read = Table(table.file, rows, names, base=table.folder, place_of=places.__getitem__)
    about = {kind: kind if any(row.get(kind) for row in rows) else "" for kind in ("image", "audio")}
    prompts = Prompts(file, "prompt", image=about["image"], audio=about["audio"]).of(read)
    return [_decoded(prompts[at], table.folder, place) for at, place in enumerate(places)]


def _row(table: Table, at: int) -> Mapping[str, Any]:
    if isinstance(table.rows, ColumnRows):
        return {column: table.cell(at, column) for column in table.columns}
    return table.row(at)


def _decoded(prompt: Prompt, folder: Path, place: str) -> Prompt:
    """The prompt with pictures and sounds in `chosen` and `rejected` in the place of their names."""
    meta = dict(prompt.meta)
    for side in ("chosen", "rejected"):
        value = meta.get(side)
        outputs = list(value) if isinstance(value, list | tuple) and not is_messages(value) else [value]
        meta[side] = [_output(output, folder, f"{place}: '{side}'") for output in outputs]
    return Prompt(prompt.text, prompt.media, meta, place, messages=prompt.messages, tools=prompt.tools)


def _output(output: Any, folder: Path, place: str) -> Any:
    if is_messages(output):
        return str(output[-1]["content"])
    kind = kind_of(output, folder)
    return output if kind == "text" else LazyMedia({kind: output}, folder, place)[kind]


def judge_reward(name: str, reward: Any, rows: Sequence[Prompt], *, batch: int = 64, seed: int = 0) -> Evaluation:
    """Measure a reward on rows of known worth; `name` is the reward's, for messages.

    A reward whose scores depend on the other rows is given all of them at once.

    Raises:
        DataError: rows that cannot be judged, or lack a column that the reward needs.
        CapabilityError: a reward of sets, or of another modality than the outputs'.
    """
    from mmalign.core.protocols import SetReward
    from mmalign.evaluation.judging import judge
    from mmalign.rewards import Guarded, Mix
    from mmalign.rewards.engine.traits import RewardTraits, require_columns

    if isinstance(reward, SetReward):
        raise CapabilityError(f"reward '{name}' judges sets; a bench needs a reward of single rows.")
    if not rows:
        raise DataError("there are no rows to judge.")
    first = rows[0].meta["chosen"][0]
    kind = modality_of([first] if isinstance(first, str) else first[None] if isinstance(first, Tensor) else first)
    if kind not in reward.modalities:
        judged = " and ".join(sorted(reward.modalities))
        raise CapabilityError(f"reward '{name}' judges {judged}; these outputs are {kind}.")
    require_columns({f"reward '{name}'": reward}, list(rows))
    whole = reward.relative if isinstance(reward, Mix) else RewardTraits.of(reward).batch_dependent
    guarded = reward if isinstance(reward, Mix) else Guarded(name, reward, monitor=True)
    try:
        with torch.no_grad():
            return judge(RewardScorer(guarded, kind), list(rows), seed=seed, rows=1 << 30 if whole else batch)
    finally:
        guarded.close()


def measured(evaluation: Evaluation) -> dict[str, dict[str, float | int]]:
    """Every rule's value with its 95 % interval and the rows it is of, by name: JSON."""
    figures = {}
    for name in [*evaluation.scores, *evaluation.sets]:
        interval = evaluation.interval(name)
        figures[name] = {"value": interval.value, "low": interval.low, "high": interval.high, "n": interval.n}
    return figures


def reward_of(name: str, options: Mapping[str, Any], allow: Collection[str] = ()) -> Any:
    """The reward `name`, or all rewards of the run file (or run directory) of that name, combined as it says.

    Raises:
        ConfigError: a run file without rewards, or with options beside it; what is wrong with either.
    """
    from mmalign.core.config import draft
    from mmalign.rewards import load_reward
    from mmalign.run.build import build

    path = Path(name)
    if path.suffix not in (".yaml", ".yml") and not (path / "run.yaml").is_file():
        return load_reward(name, allow, **options)
    if options:
        raise ConfigError(f"--set: options of a reward; {name} is a run file, which says its own.")
    reward = build(draft(path / "run.yaml" if path.is_dir() else path), allow).reward
    if reward is None:
        raise ConfigError(f"{name}: has no rewards; of a reward model's run: --reward reward_model --set model={name}.")
    return reward
