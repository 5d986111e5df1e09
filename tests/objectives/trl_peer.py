"""TRL's own loss functions on one of our models: log-probs are made the plain way, what follows is TRL's code."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor


def plain_log_probs(model: Any, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """log_softmax of all logits, gathered: (B, L - 1) of every token but the first, and the logits themselves."""
    logits = model(input_ids=ids, attention_mask=mask.long(), use_cache=False).logits[:, :-1].float()
    return logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0], logits


def accelerator() -> Any:
    """One process."""
    same = {name: (lambda value, **_: value) for name in ("gather", "gather_for_metrics", "reduce", "unwrap_model")}
    return SimpleNamespace(device=torch.device("cpu"), num_processes=1, **same)


def peer(model: Any, **settings: Any) -> Any:
    """What TRL's losses read of their trainer, with its defaults."""
    args: dict[str, Any] = {
        "delta": None,
        "use_bias_correction_kl": False,
        "sapo_temperature_pos": 1.0,
        "sapo_temperature_neg": 1.05,
        "vespo_k_pos": 2.0,
        "vespo_lambda_pos": 3.0,
        "vespo_k_neg": 3.0,
        "vespo_lambda_neg": 2.0,
        "steps_per_generation": 1,
        "discopop_tau": 0.05,
    }
    given = {name: settings.pop(name) for name in [*settings] if name in args}
    defaults: dict[str, Any] = {
        "args": SimpleNamespace(**args | given),
        "model": SimpleNamespace(training=False),
        "accelerator": accelerator(),
        "aux_loss_enabled": False,
        "top_entropy_quantile": 1.0,
        "off_policy_mask_threshold": None,
        "importance_sampling_level": "token",
        "beta": 0.0,
        "epsilon_low": 0.2,
        "epsilon_high": 0.2,
        "use_vllm": False,
        "current_gradient_accumulation_steps": 1,
        "_entropy_bonus_enabled": False,
        "_metrics": defaultdict(lambda: defaultdict(list)),
        "_total_train_tokens": 0,
        "_tp_size": 1,
        "ld_alpha": None,
        "precompute_ref_logps": True,
        "f_divergence_type": "reverse_kl",
        "label_smoothing": 0.0,
        "use_weighting": False,
        "calculate_KL": True,
        "desirable_weight": 1.0,
        "undesirable_weight": 1.0,
        "alpha": 0.0,
        "_get_per_token_logps_and_entropies": _of_completions,
    }
    return SimpleNamespace(**defaults | settings)


def _of_completions(model: Any, ids: Tensor, mask: Tensor, keep: int, **_: Any) -> tuple[Tensor, Tensor, None]:
    said, logits = plain_log_probs(model, ids, mask)
    spread = logits.log_softmax(-1)
    return said[:, -keep:], -(spread.exp() * spread).sum(-1)[:, -keep:], None


class FusedHead:
    """A model whose forward gives what TRL's fused head gives: log-probs of the labels, 0 where there is none."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __call__(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, **more: Any) -> SimpleNamespace:
        said, _ = plain_log_probs(self.model, input_ids, attention_mask)
        said = said.where(labels[:, 1:] != -100, 0.0)
        zero = torch.zeros_like(said).detach()
        return SimpleNamespace(log_probs=said, entropy=zero, mean_logits=zero, is_top1=zero.bool())


def sequences(prompts: list[Tensor], tokens: Tensor, mask: Tensor, pad: int) -> Mapping[str, Tensor]:
    """Prompts and completions as TRL's DPO and KTO batches: one row of ids, right-padded."""
    rows = [torch.cat([p, t[m]]) for p, t, m in zip(prompts, tokens, mask, strict=True)]
    marks = [
        torch.cat([torch.zeros_like(p), torch.ones_like(t[m])]) for p, t, m in zip(prompts, tokens, mask, strict=True)
    ]
    pad_rows = torch.nn.utils.rnn.pad_sequence
    return {
        "input_ids": pad_rows(rows, batch_first=True, padding_value=pad),
        "attention_mask": pad_rows([torch.ones_like(r) for r in rows], batch_first=True),
        "completion_mask": pad_rows(marks, batch_first=True),
    }
