"""The network of the paper's figure in PyTorch, with PyTorch's affine_grid and grid_sample."""

# Does not import JAX, so that cold_start.py times PyTorch alone.
import os
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.needs import require

require("torch")

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from deep_emotion_jax.nn.model import DeepEmotion

torch.set_num_threads(os.cpu_count() or 1)


class TorchDeepEmotion(nn.Module):
    """Maps images [N, 1, 48, 48] in [0, 1] to logits [N, 7]; see `model.DeepEmotion`."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(1, 10, 3), nn.ReLU(), nn.Conv2d(10, 10, 3), nn.MaxPool2d(2), nn.ReLU()),
            *(nn.Conv2d(10, 10, 3), nn.ReLU(), nn.Conv2d(10, 10, 3), nn.MaxPool2d(2), nn.ReLU()),
            nn.Dropout(0.2),
        )
        self.localization = nn.Sequential(
            *(nn.Conv2d(1, 8, 3, padding=1), nn.MaxPool2d(4), nn.ReLU()),
            *(nn.Conv2d(8, 10, 3, padding=1), nn.MaxPool2d(4), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(90, 32), nn.ReLU(), nn.Linear(32, 6)),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(810, 50), nn.ReLU(), nn.Linear(50, 7)
        )
        assert sum(parameter.numel() for parameter in self.parameters()) == 47_657

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Standardises each image, and applies the layers of the figure."""
        std, mean = torch.std_mean(images, (1, 2, 3), correction=0, keepdim=True)
        face = (images - mean) / std.clamp(min=1 / 255)
        x = self.features(face)
        theta = self.localization(face).view(-1, 2, 3)
        grid = functional.affine_grid(theta, list(x.shape), align_corners=False)
        return self.classifier(functional.grid_sample(x, grid, align_corners=False))


def torch_copy(model: "DeepEmotion") -> TorchDeepEmotion:
    """Copies a network to PyTorch, and checks that both give the same logits."""
    assert model.localization is not None
    copy = TorchDeepEmotion()
    ours = [*(conv for stage in model.stages for conv in stage.convs), model.fc1, model.fc2]
    ours += [*(conv for stage in model.localization.stages for conv in stage.convs)]
    ours += [model.localization.hidden, model.localization.theta]
    theirs = [*_layers(copy.features), *_layers(copy.classifier), *_layers(copy.localization)]
    with torch.no_grad():
        for mine, layer in zip(ours, theirs, strict=True):
            kernel = np.asarray(mine.kernel)
            if kernel.ndim == 4:
                kernel = kernel.transpose(3, 2, 0, 1)
            else:
                # PyTorch flattens channels first, Flax last.
                side = {810: 9, 90: 3}.get(len(kernel), 1)
                kernel = kernel.reshape(side, side, -1, kernel.shape[1])
                kernel = kernel.transpose(3, 2, 0, 1).reshape(kernel.shape[3], -1)
            layer.weight.copy_(torch.from_numpy(kernel.copy()))
            layer.bias.copy_(torch.from_numpy(np.array(mine.bias)))
        images = np.random.default_rng(0).random((4, 48, 48, 1), np.float32)
        logits = copy.eval()(torch.from_numpy(images).permute(0, 3, 1, 2))
    np.testing.assert_allclose(logits, model(images), atol=1e-4)
    return copy


def _layers(part: nn.Sequential) -> list:
    return [layer for layer in part if isinstance(layer, nn.Conv2d | nn.Linear)]
