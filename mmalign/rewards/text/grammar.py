"""Is a text well formed? A small head on a CLIP text tower, trained on captions and on what was made of them."""

from __future__ import annotations

from dataclasses import dataclass

from mmalign.core.files import require_local
from mmalign.core.types import Prompt, Rollout, Scores
from mmalign.rewards.by_row import read_rows
from mmalign.rewards.models.clip_towers import Backend, ReadsClip, Source
from mmalign.rewards.models.grammar_head import GrammarHead, load_grammar_head
from mmalign.rewards.parsing import LONG, Where, answer_of, bounded

__all__ = ["Grammar"]


@dataclass
class Grammar(ReadsClip):
    """P(grammatical), in [0, 1], as in "Fine-grained Image Captioning with CLIP Reward" (2205.13115).

    The head tells captions from the same with words repeated, removed, inserted, swapped or shuffled: the ways in which
    captions fall apart that are trained on CLIP alone. Texts are read without CLIPScore's "A photo depicts ", as the
    head was trained. A text longer than the tower's context is judged by its beginning. An empty one is PARSE_FAIL.

    Args:
        head: safetensors, see `models/grammar_head.py`; trained on the text tower of this very model.
        checkpoint: the CLIP model, as reward `clip`'s.
        model: an architecture of open_clip's list, instead of `checkpoint`.
        pretrained: its weights' tag.
        backend: which library reads `checkpoint`.
        where: the answer stands, see `parsing.answer_of`.
    """

    head: str
    checkpoint: str = ""
    model: str = ""
    pretrained: str = ""
    backend: Backend = "auto"
    where: Where = "whole"
    modalities = frozenset({"text"})
    range = (0.0, 1.0)
    differentiable = False
    deterministic = True

    def __post_init__(self) -> None:
        self._source = Source(self.checkpoint, self.model, self.pretrained, self.backend)
        require_local(self.head)

    @property
    def layers(self) -> GrammarHead:
        """The head that reads CLIP's features of a text, read on first use."""
        return load_grammar_head(self.head)

    def fingerprint(self) -> str:
        """Names the bytes of CLIP's weights and of the head's, and the preprocessing: a part of cache keys."""
        return f"{self.towers.fingerprint} {self.layers.digest()}"

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B texts."""
        texts, scores = read_rows(self._read, rollout, self.range[0])
        if texts:
            scores.value[list(texts)] = self.layers.of(self.towers, list(texts.values())).cpu()
        return scores

    def _read(self, prompt: Prompt, output: str) -> str:
        return bounded(answer_of(output, self.where), LONG)
