"""Do the parts of a run go together: can the objective drive the policy, can every reward judge what it makes?"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from mmalign.core.capabilities import judges_only, members, offers
from mmalign.core.config import RunFile
from mmalign.core.errors import CapabilityError
from mmalign.core.objective import Objective, ObjectiveTraits
from mmalign.core.protocols import Adapter, AdapterTraits, AnyPolicy, PolicyTraits, Searching
from mmalign.core.setting import Setting
from mmalign.objectives.meta_rm import MetaRM
from mmalign.rewards.engine.traits import RewardTraits
from mmalign.run.checks import Faults, check, check_training
from mmalign.run.registries import REGISTRIES


@check_training
def trains(adapter: object) -> Faults:
    """Refuse an adapter that is frozen, which a run of training could not change."""
    if AdapterTraits.of(adapter).train == "frozen":
        yield CapabilityError("adapter.train: frozen trains nothing; set it to lora or full.")


@check_training
def one_set_of_weights(objective: object, adapter: object) -> Faults:
    """Refuse activations that are computed anew, at the run's own weights, where a loss is taken at others."""
    if isinstance(objective, MetaRM) and getattr(adapter, "gradient_checkpointing", False):
        yield "adapter.gradient_checkpointing: objective 'meta_rm' computes at shifted weights; set it to false."


@check
def drives(file: RunFile, classes: Mapping[str, type]) -> Faults:
    """The policy can do what the objective needs; classes are compared, so that no wrong option stands in the way."""
    if not {"objective", "policy"} <= set(classes):
        return
    needs, policy = getattr(classes["objective"], "needs", None), classes["policy"]
    if needs is not None and not offers(policy, needs):
        missing = [m for m in members(needs) if not hasattr(policy, m)]
        yield CapabilityError(
            f"objective '{file.objective['name']}' drives a {needs.__name__}; policy '{file.policy['name']}' lacks "
            f"{', '.join(missing)}. Policies that fit: {', '.join(fitting(needs))}."
        )


def fitting(needs: type) -> list[str]:
    """List the names of the policies that offer the capability; ["none"] where no policy does."""
    registry = REGISTRIES["policies"]
    return [name for name in registry.names() if offers(registry.get(name), needs)] or ["none"]


@check
def scorer(file: RunFile, classes: Mapping[str, type]) -> Faults:
    """A scorer's run has no rewards, judges or previews of outputs, which it does not make."""
    if "policy" not in classes or not judges_only(classes["policy"]):
        return
    name = file.policy["name"]
    places = [f"rewards.{key}" for key in file.rewards] + [f"evaluation.judges.{key}" for key in file.evaluation.judges]
    for place in places:
        yield f"{place}: judges what a policy makes, and policy '{name}' makes nothing; remove it."
    if file.trainer.preview_every:
        yield f"trainer.preview_every: policy '{name}' makes nothing to show; use evaluate_every."


@check
def kept_best(file: RunFile, classes: Mapping[str, type]) -> Faults:
    """The measure by which the best checkpoint is kept is measured, and along the way."""
    if not (name := file.trainer.keep_best):
        return
    if "policy" in classes and judges_only(classes["policy"]):
        yield "trainer.keep_best: a reward model has no judges; keep more of its checkpoints by trainer.keep."
        return
    measured = [*file.rewards, *file.evaluation.judges]
    if name not in measured:
        names = ", ".join(measured) or "none"
        yield f"trainer.keep_best: '{name}' is no reward or judge of this run; choose from {names}."
    if not file.trainer.evaluate_every:
        yield "trainer.keep_best: nothing is measured along the way; set trainer.evaluate_every."


@check
def searched(file: RunFile, reward: object, classes: Mapping[str, type]) -> Faults:
    """The measure by which thresholds are searched for is measured, and along the way."""
    combination = getattr(reward, "combination", None)
    if not isinstance(combination, Searching) or not combination.search:
        return
    measured = [*file.rewards, *file.evaluation.judges]
    if combination.search not in measured:
        names = ", ".join(measured) or "none"
        yield f"combine.search: '{combination.search}' is no reward or judge of this run; choose from {names}."
    if not file.trainer.evaluate_every:
        yield "combine.search: nothing is measured along the way; set trainer.evaluate_every."


@check
def objective_rules(file: RunFile, objective: Objective[Any], reward: object, classes: Mapping[str, type]) -> Faults:
    """What the objective itself has against the run around it."""
    if (check_run := ObjectiveTraits.of(objective).check) is not None:
        names = (file.objective["name"], file.combine["name"])
        yield from check_run(Setting(*names, reward, classes.get("policy"), classes.get("adapter")))


@check
def modalities(policy: AnyPolicy, rewards: Mapping[str, Any], judges: Mapping[str, Any]) -> Faults:
    """Every reward and judge can judge the kind of output that the policy makes."""
    if judges_only(type(policy)):
        return
    for place, reward in {**rewards, **judges}.items():
        if policy.modality not in reward.modalities:
            kinds = " and ".join(sorted(reward.modalities))
            yield CapabilityError(f"{place}: judges {kinds}, but the policy makes {policy.modality}.")


@check
def kept_features(policy: AnyPolicy, rewards: Mapping[str, Any], judges: Mapping[str, Any]) -> Faults:
    """Rewards that compare outputs by the policy's own features need a policy that keeps them."""
    for place, reward in {**rewards, **judges}.items():
        if RewardTraits.of(reward).reads_features and not PolicyTraits.of(policy).keep_features:
            kept = hasattr(policy, "keep_features")
            instead = "set policy.keep_features: true" if kept else "this policy keeps none; use policy: {name: tokens}"
            yield f"{place}: compares outputs by the policy's own features; {instead}."


@check
def gradients(file: RunFile, classes: Mapping[str, type], reward: Any) -> Faults:
    """Objectives that differentiate through the output need rewards that let it."""
    needs = getattr(classes.get("objective"), "needs", None)
    if reward is None or needs is None or "rsample" not in members(needs):
        return
    if blind := [key for key, slot in reward.slots.items() if not slot.reward.differentiable]:
        yield CapabilityError(
            f"objective '{file.objective['name']}' follows the reward's gradient, but "
            f"{', '.join(f'rewards.{key}' for key in blind)} has none; use a differentiable reward or grpo."
        )


@check
def negative_prompt(adapter: Adapter, policy: AnyPolicy) -> Faults:
    """Refuse a negative prompt that no guidance reads."""
    usual: dict[str, object] = (
        {f.name: f.default for f in dataclasses.fields(adapter)} if dataclasses.is_dataclass(adapter) else {}
    )
    if "negative_prompt" not in usual or vars(adapter)["negative_prompt"] == usual["negative_prompt"]:
        return
    scales = [getattr(policy, name, None) for name in ("guidance_scale", "eval_guidance_scale")]
    if any(scale is not None for scale in scales) and not any(scale is not None and scale > 1 for scale in scales):
        yield (
            f"adapter.negative_prompt: is not read at policy.guidance_scale {scales[0]:g}, for at most 1 is no "
            "guidance; raise it, or remove the negative prompt."
        )
