"""Are the rows of the data there, of the kind that is read, with every column and file that is named?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmalign.core.capabilities import judges_only
from mmalign.core.config import RunFile
from mmalign.core.errors import DataError, all_faults
from mmalign.core.objective import Objective, ObjectiveTraits
from mmalign.core.protocols import Adapter, AnyPolicy, DataSource
from mmalign.data.lazy_media import require_files
from mmalign.data.like_training import prompts_like
from mmalign.data.row_kinds import SOURCES, kind_of_rows, modality_of_rows, prompts_of
from mmalign.data.sampled import sampled, say_sampled
from mmalign.rewards.engine.masked import require_valued_rows
from mmalign.rewards.engine.mix import Mix
from mmalign.rewards.engine.traits import require_columns
from mmalign.run.checks import Faults, check, check_training, part
from mmalign.run.lengths import HasReader


@part
def items(source: DataSource) -> Sequence[Any]:
    """Read the rows to train on; those that are expensive to make are made when they are indexed."""
    return source.training_items()


@part
def looked_into(items: Sequence[Any]) -> Sequence[Any]:
    """Those of the rows to train on that are looked into before anything is loaded: of very many an even share."""
    say_sampled(items)
    return sampled(items)


@part
def questions(file: RunFile, source: DataSource) -> Sequence[Any]:
    """What is measured on: the rows of `evaluation.prompts`, or of the data's own held-out part."""
    named, count = file.evaluation.prompts, file.evaluation.count
    rows = prompts_like(source, named, file.folder) if named else source.held_out_items()
    return rows[: count or None]


@check_training
def kinds(file: RunFile, objective: Objective[Any], items: Sequence[Any]) -> Faults:
    """Refuse rows of a kind (prompts, preferences, examples) that the objective does not read."""
    traits = ObjectiveTraits.of(objective)
    if (kind := kind_of_rows(items)) not in (reads := traits.reads):
        instead = "" if traits.online is None else f", or set objective.online (now {traits.online})"
        yield DataError(
            f"data: holds {kind}, but objective '{file.objective['name']}' reads {' or '.join(sorted(reads))}; "
            f"use data: {{name: {next(SOURCES[kind] for kind in SOURCES if kind in reads)}, …}}{instead}."
        )


@check_training
def outputs(policy: AnyPolicy, items: Sequence[Any]) -> Faults:
    """Refuse outputs of another modality than the policy's, by the suffixes of their files."""
    kind = modality_of_rows(items)
    if kind in (None, policy.modality):
        return
    if kind_of_rows(items) == "examples":
        yield DataError(f"data: the outputs to imitate are {kind}, but the policy is of {policy.modality}.")
    else:
        yield DataError(
            f"data: chosen and rejected hold {kind}, but the policy is of {policy.modality}; name files by their "
            "suffix, or say data.outputs."
        )


@check_training
def turns(adapter: Adapter, looked_into: Sequence[Any]) -> Faults:
    """Refuse conversations to train a generator on, which reads one text."""
    yield from _conversations(adapter, looked_into)


@check
def held_out_turns(adapter: Adapter, questions: Sequence[Any]) -> Faults:
    """Refuse conversations to measure it on."""
    yield from _conversations(adapter, questions)


def _conversations(adapter: Adapter, rows: Sequence[Any]) -> Faults:
    if isinstance(adapter, HasReader):
        return
    if conversation := next((prompt for prompt in prompts_of(rows) if prompt.converses), None):
        yield DataError(
            f"{conversation.place or 'data'}: is a conversation of {len(conversation.messages)} messages, and this "
            "adapter reads one text; name a column of texts."
        )


@check_training
def files(file: RunFile, source: DataSource, looked_into: Sequence[Any]) -> None:
    """Of the rows to train on, and of those that are held out."""
    require_files(looked_into, [] if file.evaluation.prompts else sampled(source.held_out_items()))


@check
def held_out_files(file: RunFile, questions: Sequence[Any]) -> None:
    """Of the rows that are measured on, where they are not the data's own."""
    if file.evaluation.prompts:
        require_files(questions)


@check_training
def columns(policy: AnyPolicy, rewards: Mapping[str, Any], looked_into: Sequence[Any]) -> None:
    """A column that no row at all has; a scorer's run has no rewards."""
    if not judges_only(type(policy)) and any(hasattr(reward, "needs") for reward in rewards.values()):
        require_columns(rewards, prompts_of(looked_into))


@check_training
def rows_with_value(policy: AnyPolicy, reward: Mix | None, looked_into: Sequence[Any]) -> None:
    """Columns that no row has at once, so that none would be trained on."""
    prompts = prompts_of(looked_into)
    if reward is not None and prompts and not judges_only(type(policy)):
        require_valued_rows(reward, prompts)


@check_training
def objective_columns(objective: Objective[Any], looked_into: Sequence[Any]) -> None:
    """What the objective itself reads of a row's columns."""
    if (check_data := ObjectiveTraits.of(objective).check_data) is None:
        return
    faults = []
    for prompt in prompts_of(looked_into):
        try:
            check_data(prompt)
        except DataError as error:
            faults.append(str(error))
    if faults:
        raise all_faults(faults)


@check
def held_out_columns(
    policy: AnyPolicy, rewards: Mapping[str, Any], judges: Mapping[str, Any], questions: Sequence[Any]
) -> None:
    """A column that no row at all has."""
    if not judges_only(type(policy)):
        require_columns({**rewards, **judges}, prompts_of(questions))
