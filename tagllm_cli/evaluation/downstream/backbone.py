"""The image model under a classifier: loaded by `transformers`, or a small ResNet without pretrained weights.

Features of an image are the mean of the model's last hidden state over its positions (pixels or tokens, class tokens
included): of a ResNet that is what its own classifier gets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image

from tagllm_cli.errors import ModelError
from tagllm_cli.evaluation.downstream.inputs import Prepare
from tagllm_cli.evaluation.downstream.options import DownstreamOptions
from tagllm_cli.evaluation.entries import Array
from tagllm_cli.text import one_line

if TYPE_CHECKING:
    import torch

SCRATCH_SIDE = 64  # pixels
_SCRATCH_WIDTHS = (16, 32, 64, 128)


@dataclass(frozen=True, slots=True)
class Backbone:
    """An image model.

    Args:
        prepare: an RGB image as float32 [3, height, width].
        make: the model anew, with its pretrained weights or (in torch's random state) without; it takes float32
            [images, 3, height, width] and returns features float32 [images, width].
    """

    name: str
    prepare: Prepare
    make: Callable[[], torch.nn.Module]


def load_backbone(options: DownstreamOptions) -> Backbone:
    """Return the chosen backbone. Raises ModelError where `transformers` cannot load it as an image model."""
    if options.is_scratch:
        return Backbone("ResNet from scratch", _prepare_scratch, _make_scratch)
    from transformers import AutoImageProcessor
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    name = options.backbone
    with _as_model_error(name):
        processor = AutoImageProcessor.from_pretrained(name)

    def prepare(image: PIL.Image.Image) -> Array:
        return np.asarray(processor(images=image, return_tensors="np")["pixel_values"][0], np.float32)

    return Backbone(name, prepare, lambda: _pretrained(name))


def _prepare_scratch(image: PIL.Image.Image) -> Array:
    small = image.resize((SCRATCH_SIDE, SCRATCH_SIDE), PIL.Image.Resampling.BICUBIC)
    return (np.asarray(small, np.float32).transpose(2, 0, 1) / 255 - 0.5) / 0.25


def _make_scratch() -> torch.nn.Module:
    from transformers import ResNetConfig, ResNetModel

    widths = list(_SCRATCH_WIDTHS)
    config = ResNetConfig(embedding_size=widths[0], hidden_sizes=widths, depths=[1] * 4, layer_type="basic")
    return _features_of(ResNetModel(config))


def _pretrained(name: str) -> torch.nn.Module:
    from transformers import AutoModel

    with _as_model_error(name):
        model = AutoModel.from_pretrained(name)
    return _features_of(getattr(model, "vision_model", model))  # of CLIP and its like, the half that sees


def _features_of(model: Any) -> torch.nn.Module:
    import torch

    class Features(torch.nn.Module):  # type: ignore[misc]  # torch counts as Any
        def __init__(self) -> None:
            super().__init__()
            self.model = model.float()

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            state = self.model(pixel_values=pixels).last_hidden_state
            return state.flatten(2).mean(2) if state.ndim == 4 else state.mean(1)

    # On CPUs convolutions are several times faster in this layout.
    return Features().to(memory_format=torch.channels_last)


@contextmanager
def _as_model_error(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # transformers and safetensors raise a dozen kinds, OSError and ValueError among them
        raise ModelError(
            f"transformers cannot load {name} as an image model: {one_line(error, 200)}",
            "Name an image model with an image processor, from the hub or a folder, or --backbone scratch.",
        ) from error
