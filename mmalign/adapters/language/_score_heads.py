"""Heads that make a score of a network's features, in float32 whatever the network computes in.

A head takes the place of a classifier's last linear layer (`forward`: features (…, D) → (…, K)); the classifier picks
the token that stands for the row, and `read` makes one number of its K. Bfloat16 has three digits: answers would tie.

| kind | score | source |
|---|---|---|
| linear | w·h (+ b) | Stiennon et al. 2020 (2009.01325) |
| mlp2 | w·silu(W h + b) + c | BaseReward (2509.16127) |
| ideal_point | -‖f(h) - a_u‖, f an MLP of two layers, a_u = Σ_k softmax(w_u)_k p_k | PAL-A (2406.08469), public code |

| ideal_point, points: prompt | e^s cos(f(h), Σ_k softmax(w_u)_k g_k(h')), h' the features of the prompt's end | PAL-B |

PAL's ideal points are mixtures of a few prototypes p_k, one weight vector per user u; logistic loss on differences of
these scores is its preference model. A new user is fitted from few comparisons with all else frozen (`train: user`).
Reconstruction: SiLU inside f and g_k, as in mlp2; s starts at log 10. Left out: the bound on the prototypes' norm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float, Int

from mmalign.adapters.bases.pretrained_adapter import full_precision
from mmalign.adapters.language._classifier import HeadOptions
from mmalign.core.errors import CapabilityError
from mmalign.core.tensor import Tensor

Also = Literal["", "features", "states"]


class OneNumber(torch.nn.Module):
    """A head whose first number is the score."""

    def read(self, pooled: Float[Tensor, "B 1"], user: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
        """Return that number (B,) of every row, whoever the user is."""
        return pooled[:, 0]


class LinearHead(OneNumber):
    """One linear layer under the names of the layer it replaces, so that plain transformers reads it."""

    def __init__(self, width: int, bias: bool) -> None:
        super().__init__()
        # N(0, 1/(D + 1)) as in Stiennon et al. 2020: features of size 1 score about 1.
        self.weight = torch.nn.Parameter(torch.randn(1, width) / (width + 1) ** 0.5)
        self.bias = torch.nn.Parameter(torch.zeros(1)) if bias else None

    def forward(self, features: Float[Tensor, "*any D"]) -> Float[Tensor, "*any 1"]:
        """Compute one number per row, (B, 1), of features (B, D)."""
        with full_precision(features.device):
            return torch.nn.functional.linear(
                features.float(), self.weight.float(), None if self.bias is None else self.bias.float()
            )


class MLP(OneNumber):
    """Two layers with SiLU between."""

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__()
        self.first, self.last = torch.nn.Linear(width, hidden), torch.nn.Linear(hidden, out)

    def forward(self, features: Float[Tensor, "*any D"]) -> Float[Tensor, "*any K"]:
        """K numbers."""
        with full_precision(features.device):
            x = torch.nn.functional.linear(features.float(), self.first.weight.float(), self.first.bias.float())
            return torch.nn.functional.linear(
                torch.nn.functional.silu(x), self.last.weight.float(), self.last.bias.float()
            )


class Mixtures(torch.nn.Module):
    """Weights of prototypes, a row for each user."""

    def __init__(self, weight: Float[Tensor, "U P"]) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(weight.clone())


class OfUsers(torch.nn.Module):
    """A head whose users mix prototypes, each in shares of their own."""

    def __init__(self, prototypes: int, users: int) -> None:
        super().__init__()
        self.mixture = torch.nn.Parameter(torch.zeros(max(users, 1), prototypes))
        self.newcomers: Mixtures | None = None  # the last users' weights, where they alone are fitted

    def take_users(self, weights: Float[Tensor, "U P"], newcomers: int) -> None:
        """Take the saved weights of the first users; those after them start with equal shares of all prototypes.

        The last `newcomers` have their weights apart, so that these can be fitted and nothing else.
        """
        users = len(self.mixture)
        every = torch.cat([weights, weights.new_zeros(users - len(weights), weights.shape[1])])
        self.mixture = torch.nn.Parameter(every[: users - newcomers])
        self.newcomers = Mixtures(every[users - newcomers :]) if newcomers else None

    def shares(self) -> Float[Tensor, "U P"]:
        """Every user's shares of the prototypes, which sum to 1."""
        every = self.mixture if self.newcomers is None else torch.cat([self.mixture, self.newcomers.weight])
        return every.float().softmax(-1)

    def of_user(self, scores: Float[Tensor, "B U"], user: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
        """Each row's score for its user; of nobody in particular (-1), the users' mean."""
        own = scores.gather(1, user.clamp(min=0)[:, None])[:, 0]
        return torch.where(user < 0, scores.mean(1), own)


class IdealPoint(OfUsers):
    """How near an output lies to what a user wants."""

    def __init__(self, width: int, space: int, prototypes: int, users: int) -> None:
        super().__init__(prototypes, users)
        self.place = MLP(width, width, space)
        self.prototypes = torch.nn.Parameter(torch.randn(prototypes, space) / space**0.5)

    def forward(self, features: Float[Tensor, "*any D"]) -> Float[Tensor, "*any K"]:
        """Where it lies, K dimensions."""
        return self.place(features)

    def read(self, pooled: Float[Tensor, "B K"], user: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
        """Minus the distance to the ideal point of each row's user."""
        points = self.shares() @ self.prototypes.float()
        return self.of_user(-torch.linalg.vector_norm(pooled[:, None] - points, dim=-1), user)


class PromptPoint(OfUsers):
    """How near an output lies to what a user wants of this prompt: prototypes are made of the prompt.

    `begins` (B,), where each row's output begins, is set before every call.
    """

    MOST = math.log(100.0)  # of the scale, as in CLIP

    def __init__(self, width: int, space: int, prototypes: int, users: int) -> None:
        super().__init__(prototypes, users)
        self.space = space
        self.place, self.wanted = MLP(width, width, space), MLP(width, width, prototypes * space)
        self.log_scale = torch.nn.Parameter(torch.tensor(math.log(10.0)))
        self.begins: Tensor | None = None

    def forward(self, features: Float[Tensor, "B L D"]) -> Float[Tensor, "B L K"]:
        """Where each token lies, and behind it the prototypes of the row's prompt, which its last token makes."""
        if self.begins is None:
            raise CapabilityError("head.points: prompt needs to know where outputs begin; take a language model.")
        rows = torch.arange(len(features), device=features.device)
        wanted = self.wanted(features[rows, (self.begins - 1).clamp(min=0)])
        return torch.cat([self.place(features), wanted[:, None].expand(-1, features.shape[1], -1)], -1)

    def read(self, pooled: Float[Tensor, "B K"], user: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
        """The scaled cosine of the output and the mixture that each row's user wants of its prompt."""
        place, wanted = pooled[:, : self.space], pooled[:, self.space :].unflatten(1, (-1, self.space))
        points = torch.einsum("up,bps->bus", self.shares(), wanted)
        cosines = torch.nn.functional.cosine_similarity(place[:, None], points, dim=-1)
        return self.of_user(cosines * self.log_scale.float().clamp(max=self.MOST).exp(), user)


def fresh_head(options: HeadOptions, width: int, bias: bool) -> torch.nn.Module:
    """A head for features of `width`, drawn from its seed; `bias` of the linear one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        if options.kind == "mlp2":
            return MLP(width, options.width or width, 1)
        if options.kind == "ideal_point":
            kind = PromptPoint if options.points == "prompt" else IdealPoint
            return kind(width, options.width or width, options.prototypes, len(options.users))
        return LinearHead(width, bias)


class ScoringNetwork(torch.nn.Module):
    """A classifier whose last layer, `place`, is a head; its forward gives scores."""

    def __init__(self, model: torch.nn.Module, place: str) -> None:
        super().__init__()
        self.model, self.place = model, place

    def forward(
        self, user: Int[Tensor, " B"], inputs: Mapping[str, Tensor], also: Also = ""
    ) -> Float[Tensor, " B"] | tuple[Float[Tensor, " B"], Tensor]:
        """Compute one score per row, (B,); `also` what the head read, in float32.

        "features" are (B, D), those of the token that the score is of; "states" (B, L, D), those of every token.

        Raises:
            CapabilityError: states of a network that makes one vector of the tokens before its head.
        """
        head, inputs = self.model.get_submodule(self.place), dict(inputs)
        begins = inputs.pop("begins", None)
        for part in head.modules():  # the head, or the copies of it that a LoRA keeps
            if isinstance(part, PromptPoint):
                part.begins = begins
        read: list[Tensor] = []

        def keep(_: torch.nn.Module, given: tuple[Tensor, ...], out: Tensor) -> Tensor:
            read.append(given[0].float())
            # Beside the head's numbers, features come out at whatever token the classifier takes.
            return torch.cat([out, read[0]], -1) if also == "features" else out

        hook = head.register_forward_hook(keep) if also else None
        try:
            pooled = self.model(**inputs).logits.float()
        finally:
            if hook is not None:
                hook.remove()
        if also == "features":
            pooled, features = pooled.split([pooled.shape[-1] - read[0].shape[-1], read[0].shape[-1]], -1)
        trained = getattr(head, "modules_to_save", None)  # of a LoRA: the trained copy that answered
        head = head if trained is None else trained["default"]
        with full_precision(pooled.device):
            scores: Tensor = head.read(pooled, user)  # type: ignore[operator]
        if not also:
            return scores
        if also == "states" and read[0].dim() != 3:
            raise CapabilityError(
                f"{type(self.model).__name__} makes one vector of all tokens before its head: it has no features of "
                "parts of an output; take a language model that reads from left to right."
            )
        # Processes that train together wait for every weight's gradient: the head's is 0 where only features count.
        given = features if also == "features" else read[0]
        return scores, given + 0.0 * scores.reshape(-1, *[1] * (given.dim() - 1)) if torch.is_grad_enabled() else given


__all__ = ["MLP", "Also", "IdealPoint", "LinearHead", "OfUsers", "PromptPoint", "ScoringNetwork", "fresh_head"]
