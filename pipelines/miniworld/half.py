"""bfloat16 on the CPU where the processor computes in it; elsewhere it is emulated, far slower than float32."""

from __future__ import annotations

from typing import Any


def half_where_fast() -> Any:
    """An autocast to bfloat16 that is switched off on processors without AVX-512 (or another architecture's own)."""
    import torch

    return torch.autocast(
        "cpu", torch.bfloat16, enabled=torch.backends.cpu.get_cpu_capability() not in ("DEFAULT", "AVX2")
    )
