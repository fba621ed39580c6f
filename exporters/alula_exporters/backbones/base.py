"""Interface of backbones: raw inputs in, vectors out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from alula.errors import DataError
from alula_exporters.backbones.onnx import Front, export_backbone
from alula_exporters.data import F32, Inputs

_CHUNK = 512
_TRACED = 3  # rows for the export; 0 and 1 would be taken for fixed numbers of rows


class Backbone(nn.Module, ABC):
    """A network from raw inputs to vectors, float32 (n, d), the input of a head.

    Attributes:
        contract: The fields of `alula.encoders.EncoderInfo` that describe the input.
        tokenizer: Texts: JSON of the tokenizer (package ``tokenizers``); else None.
    """

    contract: Mapping[str, Any]
    tokenizer: str | None = None

    @abstractmethod
    def collate(self, inputs: Inputs) -> tuple[Tensor, ...]:
        """The tensors that `forward` takes for some rows.

        Raises:
            DataError: If the rows are not what this backbone takes.
        """

    def compute(self, inputs: Inputs) -> Tensor:
        """Vectors of a batch for a training step, float32 (n, d), with gradients."""
        self.train()
        return self._run(inputs)

    @torch.no_grad()
    def embed(self, inputs: Inputs) -> F32:
        """The vectors of all rows, float32 (n, d), in evaluation mode and bounded memory."""
        self.eval()
        parts = [self._run(inputs[i : i + _CHUNK]).cpu().numpy() for i in range(0, len(inputs), _CHUNK)]
        vectors: F32 = np.concatenate(parts)
        return vectors

    def front(self) -> Front:
        """Export the backbone as the first part of an encoder file.

        Also called before training, when a failure wastes no work.

        Raises:
            UsageError: If it cannot be exported to ONNX.
        """
        return export_backbone(self.cpu(), self._example(), about=self.contract, tokenizer=self.tokenizer)

    @abstractmethod
    def _example(self) -> dict[str, Tensor]:
        """Some rows to trace the network with, by the names of its inputs."""

    def _run(self, inputs: Inputs) -> Tensor:
        device = compute_device()
        self.to(device)
        # mixed precision for the network alone: what sparse rows and codes are compared by stays in float32
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            vectors: Tensor = self(*(tensor.to(device) for tensor in self.collate(inputs)))
        return vectors.float()


def compute_device() -> torch.device:
    """The GPU if there is one that torch can use."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class ImageBackbone(Backbone):
    """An image network behind pixel scaling: uint8 to mean 0 and deviation 1.

    Args:
        network: Takes float32 (n, c, h, w), gives float32 (n, d).
        image_shape: Height, width, channels.
        mean: Mean of each channel, of pixels in 0 .. 1; length c.
        deviation: Standard deviation of each channel.
    """

    def __init__(
        self, network: nn.Module, image_shape: tuple[int, int, int], mean: list[float], deviation: list[float]
    ) -> None:
        super().__init__()
        self.network = network
        self.contract = {"input": "images", "image_shape": list(image_shape)}
        self._shape = image_shape
        self.register_buffer("_mean", 255 * torch.tensor(mean))
        self.register_buffer("_deviation", 255 * torch.tensor(deviation))

    _mean: Tensor
    _deviation: Tensor

    def collate(self, inputs: Inputs) -> tuple[Tensor, ...]:
        """See `Backbone.collate`: uint8 (n, h, w, c)."""
        if inputs.dtype != np.uint8 or inputs.shape[1:] != self._shape:
            raise DataError(
                f"The training rows are {inputs.dtype} {inputs.shape[1:]}, and this backbone takes uint8 images of "
                f"{self._shape}."
            )
        return (torch.from_numpy(np.ascontiguousarray(inputs)),)

    def _example(self) -> dict[str, Tensor]:
        return {"images": torch.randint(256, (_TRACED, *self._shape), dtype=torch.uint8)}

    def forward(self, images: Tensor) -> Tensor:
        """Vectors, float32 (n, d), of images uint8 (n, h, w, c)."""
        pixels = (images.float() - self._mean) / self._deviation
        vectors: Tensor = self.network(pixels.permute(0, 3, 1, 2))
        return vectors


class VectorBackbone(Backbone):
    """A network on given vectors, such as a multi-layer perceptron on embeddings.

    Args:
        network: Takes float32 (n, d), gives float32 (n, e).
        input_dim: d.
    """

    def __init__(self, network: nn.Module, input_dim: int) -> None:
        super().__init__()
        self.network = network
        self.contract = {"input": "vectors", "input_dim": input_dim}

    def collate(self, inputs: Inputs) -> tuple[Tensor, ...]:
        """See `Backbone.collate`: float32 (n, d)."""
        if inputs.dtype != np.float32 or inputs.ndim != 2:
            raise DataError(f"The training rows are {inputs.dtype} {inputs.shape}, and this backbone takes vectors.")
        return (torch.from_numpy(inputs),)

    def _example(self) -> dict[str, Tensor]:
        return {"vectors": torch.randn(_TRACED, self.contract["input_dim"])}

    def forward(self, vectors: Tensor) -> Tensor:
        """Vectors, float32 (n, e), of vectors float32 (n, d)."""
        features: Tensor = self.network(vectors)
        return features
