"""The largest logit of each vocabulary entry in a text, and its sparse gradient.

A SPLADE row is computed from the largest logit over the text's tokens, so that only one token of each entry above 0 has
a gradient. The logits of all tokens are never held at once, which are wide as the vocabulary, and the gradient touches
the non-zeros alone: a step takes a fraction of the time and memory, and the weights move as before.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from alula_exporters.backbones.text import TextBackbone


class LargestLogits(torch.autograd.Function):
    """The largest logit of each entry over the tokens of a text, or 0 if it is less."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, counts: list[int], weight: Tensor, bias: Tensor) -> Tensor:
        """Largest logits, float32 (n, V), at least 0.

        Args:
            ctx: Keeps tensors for `backward`.
            hidden: float32 (t, h): the tokens of all texts, one text after the other.
            counts: Tokens of each of n texts, at least 1.
            weight: float32 (V, h), of the last layer.
            bias: float32 (V,).
        """
        largest, tokens, start = [], [], 0
        for part in torch.split(hidden, counts):
            logits = torch.addmm(bias, part, weight.T)
            largest.append(logits.amax(0).relu_())
            tokens.append(logits[:, largest[-1] > 0].argmax(0) + start)
            start += len(part)
        found = torch.stack(largest)
        ctx.save_for_backward(hidden, weight, torch.cat(tokens), *found.nonzero(as_tuple=True))
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, Tensor, Tensor]:
        """Gradients of `forward`'s arguments."""
        hidden, weight, tokens, texts, entries = ctx.saved_tensors
        each = gradients[0][texts, entries]
        of_hidden = torch.zeros_like(hidden).index_add_(0, tokens, each[:, None] * weight[entries])
        of_weight = torch.zeros_like(weight).index_add_(0, entries, each[:, None] * hidden[tokens])
        of_bias = torch.zeros_like(weight[:, 0]).index_add_(0, entries, each)
        return of_hidden, None, of_weight, of_bias


class LargestPooling(nn.Module):
    """A masked language model and ``SpladePooling`` by the maximum, in one module.

    Args:
        transformer: The ``Transformer``, whose model ends with a linear layer to the vocabulary.
        pooling: Pools logits, float32 (n, t, V); it is given the largest ones, t = 1.
    """

    def __init__(self, transformer: Any, pooling: nn.Module) -> None:
        super().__init__()
        self.transformer, self.pooling = transformer, pooling
        self.only_logits = False  # True: no pooling, the largest logits themselves, without gradients

    @property
    def bias(self) -> Tensor:
        """The bias of the logits, float32 (V,)."""
        bias: Tensor = _last_layer(self.transformer).bias
        return bias

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Token ids and mask, int64 (n, t), to weights of the vocabulary, float32 (n, V)."""
        last = _last_layer(self.transformer)
        mask = features["attention_mask"]
        last.forward = lambda hidden: hidden
        try:
            hidden = self.transformer(features)["token_embeddings"]
        finally:
            del last.forward
        kept, counts = hidden[mask.bool()].to(last.weight.dtype), mask.sum(1).tolist()
        if self.only_logits:
            return {"sentence_embedding": torch.stack([last(part).amax(0) for part in torch.split(kept, counts)])}
        largest = LargestLogits.apply(kept, counts, last.weight, last.bias)  # type: ignore[no-untyped-call]
        one = {"token_embeddings": largest[:, None], "attention_mask": mask.new_ones((len(mask), 1))}
        found: dict[str, Tensor] = self.pooling(one)
        return found


def pooling_early(backbone: TextBackbone) -> TextBackbone:
    """Let a SPLADE backbone compute by `LargestPooling`, in place, if it can."""
    transformer, pooling = backbone.parts[0], backbone.parts[-1]
    last = _last_layer(transformer)
    if len(backbone.parts) == 2 and getattr(pooling, "largest", False) and getattr(last, "bias", None) is not None:
        backbone.parts = nn.ModuleList([LargestPooling(transformer, pooling)])
    return backbone


def _last_layer(transformer: Any) -> Any:
    """The layer that gives the logits; it is linear in every masked language model."""
    return transformer.auto_model.get_output_embeddings()
