"""Qwen3 for training: whole padded batches, every position's gradient, Hugging Face's parameter names.

`models/` is written for inference (paged caches, packed weights, no gradients) and cannot be trained; these hundred lines exist so that
the demo's checkpoints can be. A test holds their logits equal to transformers'. Batches are padded on the right, so under the causal
mask no real token ever sees padding. Shapes: B batch, T tokens, D hidden, H heads, K key and value heads, d head_dim.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TaskHead = Literal["causal", "sequence-classification", "token-classification", "question-answering"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """The sizes of a network, by Hugging Face's names."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-6


class Attention(nn.Module):
    """Grouped-query attention with RMSNorm over each query's and key's head_dim, before the rotation."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.head_dim = shape.head_dim
        self.groups = shape.num_attention_heads // shape.num_key_value_heads
        query_size, key_size = (n * shape.head_dim for n in (shape.num_attention_heads, shape.num_key_value_heads))
        self.q_proj = nn.Linear(shape.hidden_size, query_size, bias=False)
        self.k_proj = nn.Linear(shape.hidden_size, key_size, bias=False)
        self.v_proj = nn.Linear(shape.hidden_size, key_size, bias=False)
        self.o_proj = nn.Linear(query_size, shape.hidden_size, bias=False)
        self.q_norm = nn.RMSNorm(shape.head_dim, eps=shape.rms_norm_eps)
        self.k_norm = nn.RMSNorm(shape.head_dim, eps=shape.rms_norm_eps)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        split = (*x.shape[:2], -1, self.head_dim)
        query = rotate(self.q_norm(self.q_proj(x).view(split)).transpose(1, 2), rotation)  # [B, H, T, d]
        key = rotate(self.k_norm(self.k_proj(x).view(split)).transpose(1, 2), rotation)  # [B, K, T, d]
        value = self.v_proj(x).view(split).transpose(1, 2)
        key, value = (tensor.repeat_interleave(self.groups, dim=1) for tensor in (key, value))  # [B, H, T, d]
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        out: Tensor = self.o_proj(mixed.transpose(1, 2).flatten(2))  # [B, T, D]
        return out


class Mlp(nn.Module):
    """SwiGLU."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down_proj = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Layer(nn.Module):
    """One pre-norm block."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.self_attn = Attention(shape)
        self.mlp = Mlp(shape)
        self.input_layernorm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rotation)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Body(nn.Module):
    """Embedding, layers and the last norm: what the four heads share."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids [B, T] to hidden states [B, T, D]."""
        x = self.embed_tokens(ids)
        rotation = rotary_table(self.shape, ids.shape[1])
        for layer in self.layers:
            x = layer(x, rotation)
        out: Tensor = self.norm(x)
        return out


class Network(nn.Module):
    """A body under one task head; `state_dict()` holds exactly the names of the published class."""

    def __init__(self, shape: Shape, head: TaskHead, *, num_labels: int = 0) -> None:
        super().__init__()
        self.head = head
        self.body_name = "transformer" if head == "question-answering" else "model"
        self.add_module(self.body_name, Body(shape))
        if head == "sequence-classification":
            self.score = nn.Linear(shape.hidden_size, num_labels, bias=False)
        elif head == "token-classification":
            self.score = nn.Linear(shape.hidden_size, num_labels)
        elif head == "question-answering":
            self.qa_outputs = nn.Linear(shape.hidden_size, 2)
        self.apply(_initialise)

    @property
    def body(self) -> Body:
        body = self.get_submodule(self.body_name)
        assert isinstance(body, Body)
        return body

    def forward(self, ids: Tensor) -> Tensor:
        """Ids [B, T] to logits at every position: [B, T, V] causal (tied to the embedding), [B, T, labels], [B, T, 2]."""
        return self.project(self.body(ids))

    def project(self, hidden: Tensor) -> Tensor:
        """Hidden states [..., D] to logits, so that training can leave out the positions that carry no loss."""
        if self.head == "causal":
            return F.linear(hidden, self.body.embed_tokens.weight)
        layer = self.qa_outputs if self.head == "question-answering" else self.score
        logits: Tensor = layer(hidden)
        return logits


def rotary_table(shape: Shape, num_tokens: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine [T, d], each half of the channels repeated: the half-split convention."""
    exponent = torch.arange(0, shape.head_dim, 2, dtype=torch.float32) / shape.head_dim
    angle = torch.outer(torch.arange(num_tokens, dtype=torch.float32), shape.rope_theta**-exponent).repeat(1, 2)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Turns the channel pairs (i, i + d/2) of x [B, H, T, d] by the token's position."""
    cos, sin = rotation
    low, high = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-high, low), dim=-1) * sin


def _initialise(module: nn.Module) -> None:
    """Normal weights with deviation 0.02 and zero biases, as transformers initialises Qwen3."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
