"""Exact toys: a rectified flow and a diffusion on R^2 that implement `LatentAdapter`, and rewards on points.

An "image" of the toy world is its latent shaped (1, 1, 2): `decode` and `latents` are the identity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from mmalign.core.protocols import Prediction
from mmalign.core.types import Modality, NoiseLevel, Prompt, Rollout, Scores


class ToyAdapter:
    """What adapters of every kind have, around a network in memory."""

    modality: Modality = "image"

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.module: nn.Module = network  # a launcher may wrap it
        self._start = {k: v.clone() for k, v in network.state_dict().items()}

    @property
    def device(self) -> torch.device:
        return next((parameter.device for parameter in self.module.parameters()), torch.device("cpu"))

    def load(self, device: torch.device | str | None = None) -> Self:
        return self

    def wrap(self, prepare: Callable[[nn.Module], nn.Module]) -> None:
        self.module = prepare(self.module)

    def trainable(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.network.named_parameters() if p.requires_grad}

    @contextmanager
    def reference(self) -> Iterator[None]:
        live = {k: v.clone() for k, v in self.network.state_dict().items()}
        self.network.load_state_dict(self._start)
        try:
            yield
        finally:
            self.network.load_state_dict(live)

    def save(self, directory: Path) -> None:
        from safetensors.torch import save_file

        directory.mkdir(parents=True, exist_ok=True)
        save_file(self.module.state_dict(), directory / "toy.safetensors")

    def restore(self, directory: Path) -> None:
        from safetensors.torch import load_file

        self.module.load_state_dict(load_file(directory / "toy.safetensors"))


class ToyLatent(ToyAdapter):
    """An MLP generator over latents (1, 1, 2), conditioned on the length of the prompt's text."""

    latent_shape: tuple[int, ...] = (1, 1, 2)
    network: nn.Sequential

    def __init__(self, prediction: Prediction = "flow", seed: int = 0, width: int = 32) -> None:
        torch.manual_seed(seed)
        super().__init__(nn.Sequential(nn.Linear(4, width), nn.SiLU(), nn.Linear(width, 2)))
        self.prediction: Prediction = prediction
        self.alphas_cumprod = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)

    def encode(self, prompts: Sequence[Prompt]) -> dict[str, Tensor]:
        return {"text": torch.tensor([[float(len(p.text) % 3)] for p in prompts], device=self.device)}

    def unconditional(self, rows: int) -> dict[str, Tensor]:
        return {"text": torch.zeros(rows, 1, device=self.device)}

    def predict(self, x: Tensor, times: Tensor, condition: dict[str, Tensor]) -> Tensor:
        scaled = times / (1 if self.prediction == "flow" else 1000)
        features = torch.cat([x.flatten(1), scaled[:, None].to(x), condition["text"].to(x)], 1)
        return self.module(features).reshape(x.shape)

    def guide(self, conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
        return unconditional + scale * (conditional - unconditional)

    def schedule(self, num_inference_steps: int) -> NoiseLevel:
        if self.prediction == "flow":
            t = torch.linspace(1, 0, num_inference_steps + 1)
            return NoiseLevel(times=t, alpha=1 - t, sigma=t)
        index = torch.linspace(999, 0, num_inference_steps + 1).round().long()
        return self._at(index)

    def level(self, u: Tensor) -> NoiseLevel:
        if self.prediction == "flow":
            return NoiseLevel(times=u, alpha=1 - u, sigma=u)
        return self._at((u * 1000).long().clamp(max=999))

    def _at(self, index: Tensor) -> NoiseLevel:
        kept = self.alphas_cumprod[index]
        return NoiseLevel(times=index.float(), alpha=kept.sqrt(), sigma=(1 - kept).sqrt())

    def decode(self, x: Tensor) -> Tensor:
        return x

    def latents(self, output: Tensor) -> Tensor:
        return output


class NearPoint:
    """Higher when the output is near `target`."""

    modalities: frozenset[Modality] = frozenset({"image"})
    range = (float("-inf"), 0.0)
    differentiable = True

    def __init__(self, target: tuple[float, float] = (1.0, -1.0)) -> None:
        self.target = torch.tensor(target)

    def __call__(self, rollout: Rollout) -> Scores:
        return Scores.of(-(rollout.output.flatten(1) - self.target).square().sum(1))


class NearGaussian:
    """A set reward: minus the Fréchet distance (diagonal) to N(mean, std²)."""

    modalities: frozenset[Modality] = frozenset({"image"})
    differentiable = True

    def __init__(self, mean: float = 1.0, std: float = 0.5) -> None:
        self.mean, self.std = mean, std

    def embed(self, rollout: Rollout) -> Tensor:
        return rollout.output.flatten(1)

    def score(self, embedding: Tensor) -> Tensor:
        gap = (embedding.mean(0) - self.mean).square() + (embedding.std(0) - self.std).square()
        return -gap.sum()

    def credit(self, embedding: Tensor) -> Tensor:
        total, n = self.score(embedding), len(embedding)
        without = [self.score(torch.cat([embedding[:i], embedding[i + 1 :]])) for i in range(n)]
        credit = total - torch.stack(without)
        return credit - credit.mean()


def prompts(count: int = 4) -> list[Prompt]:
    """Prompts whose texts have different lengths."""
    return [Prompt(text="x" * (i + 1)) for i in range(count)]


Toy = Any
