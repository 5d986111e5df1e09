"""An exact generator of frames of two codebooks: the next frame depends on the last one and on the prompt's length.

As in MusicGen the second codebook starts one step late: its first entry is a fill outside the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn

from mmalign.core.protocols import Inputs
from mmalign.core.types import Modality, Prompt

V, K, FILL = 5, 2, 5


class Frames:
    """A `TokenAdapter` with event shape (2,); features are the last frame and the prompt, one-hot."""

    modality: Modality = "text"
    event_shape: tuple[int, ...] = (K,)
    vocabulary = V
    stop_ids: tuple[int, ...] = ()
    pad_id = 0
    device = torch.device("cpu")

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.module: nn.Module = nn.Linear(3 + K * (V + 1), K * V)
        self.prompts_forwarded = 0

    def load(self, device: Any = None) -> Self:
        return self

    def wrap(self, prepare: Any) -> None:
        self.module = prepare(self.module)

    def trainable(self) -> dict[str, nn.Parameter]:
        return dict(self.module.named_parameters())

    @contextmanager
    def reference(self) -> Iterator[None]:
        yield

    def save(self, directory: Any) -> None:
        raise NotImplementedError

    def restore(self, directory: Any) -> None:
        raise NotImplementedError

    def encode(self, prompts: Sequence[Prompt]) -> list[Inputs]:
        return [{"input_ids": torch.tensor([len(p.text) % 3])} for p in prompts]

    def features(self, inputs: Any, rows: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        fill = torch.full_like(tokens[:, :1], FILL)
        before = torch.cat([fill, tokens[:, :-1]], 1)
        return torch.stack([self._at(inputs, rows, before[:, t]) for t in range(before.shape[1])], 1)

    def logits(self, features: Tensor) -> Tensor:
        return self.module(features).reshape(-1, K, V)

    def begin(self, inputs: Any, rows: Tensor, steps: int) -> Walk:
        self.prompts_forwarded += len(inputs)
        return Walk(self, inputs, rows)

    def forced(self, step: int, steps: int) -> Tensor | None:
        return torch.tensor([-1, FILL]) if step == 0 else None

    def decode(self, tokens: Tensor, mask: Tensor) -> list[str]:
        return [" ".join(map(str, row[live].flatten().tolist())) for row, live in zip(tokens, mask, strict=True)]

    def tokenize(self, outputs: Any) -> tuple[Tensor, Tensor]:
        rows = [torch.tensor([int(i) for i in text.split()]).reshape(-1, K) for text in outputs]
        tokens = torch.stack(rows)
        return tokens, torch.ones(tokens.shape[:2], dtype=torch.bool)

    def _at(self, inputs: Any, rows: Tensor, frame: Tensor) -> Tensor:
        prompt = torch.stack([inputs[i]["input_ids"][0] for i in rows.tolist()])
        shown = [nn.functional.one_hot(prompt, 3), *(nn.functional.one_hot(frame[:, k], V + 1) for k in range(K))]
        return torch.cat(shown, 1).float()


class Walk:
    def __init__(self, adapter: Frames, inputs: Any, rows: Tensor) -> None:
        self.adapter, self.inputs, self.rows = adapter, inputs, rows
        self.features = adapter._at(inputs, rows, torch.full((len(rows), K), FILL))

    def advance(self, tokens: Tensor) -> None:
        self.features = self.adapter._at(self.inputs, self.rows, tokens)

    def keep(self, rows: Tensor) -> None:
        self.rows, self.features = self.rows[rows], self.features[rows]
