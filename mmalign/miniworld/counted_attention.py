"""Joint attention in which one padding token stands for many equal ones.

Without its third text encoder, Stable Diffusion 3 appends up to 256 zero tokens to every prompt. Equal tokens stay
equal through all blocks, so one of them with log(n) added to its attention score acts exactly like n. Training with a
random n is as cheap as training without padding, and makes the model work for every ``max_sequence_length``.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from diffusers.models.attention_processor import Attention


class CountedAttention:
    """Attention processor for ``SD3Transformer2DModel``; ``counts`` says how many tokens the last one stands for."""

    def __init__(self) -> None:
        #: ``(batch,)`` float; zero hides the token. None means one.
        self.counts: torch.Tensor | None = None

    def __call__(
        self,
        attn: "Attention",
        hidden_states: "torch.Tensor",
        encoder_hidden_states: "torch.Tensor",
        attention_mask: None = None,
    ) -> "tuple[torch.Tensor, torch.Tensor]":
        """Attend over pixels ``(B, P, C)`` and text ``(B, T, C)`` together."""
        import torch
        from torch.nn.functional import scaled_dot_product_attention

        def heads(projected: "torch.Tensor", norm: "torch.nn.Module | None") -> "torch.Tensor":
            split = projected.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            return split if norm is None else norm(split)

        pixels, text = hidden_states, encoder_hidden_states
        query = [heads(attn.to_q(pixels), attn.norm_q), heads(attn.add_q_proj(text), attn.norm_added_q)]
        key = [heads(attn.to_k(pixels), attn.norm_k), heads(attn.add_k_proj(text), attn.norm_added_k)]
        value = [heads(attn.to_v(pixels), None), heads(attn.add_v_proj(text), None)]
        bias = None
        if self.counts is not None:
            bias = torch.zeros(len(pixels), 1, 1, pixels.shape[1] + text.shape[1], dtype=value[0].dtype)
            bias[:, 0, 0, -1] = self.counts.clamp(min=1e-9).log().to(bias.dtype)
        query, key, value = (torch.cat(pair, dim=2).to(value[0].dtype) for pair in (query, key, value))
        attended = scaled_dot_product_attention(query, key, value, attn_mask=bias).transpose(1, 2).flatten(2)
        seen, read = attended.split([pixels.shape[1], text.shape[1]], dim=1)
        return attn.to_out[0](seen), read if attn.context_pre_only else attn.to_add_out(read)
