"""Writes training_trajectory.npz: ten training steps in PyTorch, for test_trajectory.py.

    python tests/golden/make_training_trajectory.py   # needs PyTorch; made with 2.13 on a CPU

The network, loss, optimizer, schedule and moving average are implemented here from the paper and
PyTorch's functions; nothing is imported from this repository.
"""

import math
from pathlib import Path

import numpy as np

STEPS, BATCH, CLASSES = 10, 8, 7
PEAK, WARMUP, WEIGHT_DECAY, FC_L2, SMOOTHING, EMA = 1e-3, 2, 0.05, 1e-3, 0.1, 0.95
SHAPES = {  # in the layout of Flax: kernels [height, width, in, out] and [in, out]
    "stages.0.convs.0.kernel": (3, 3, 1, 10),
    "stages.0.convs.0.bias": (10,),
    "stages.0.convs.1.kernel": (3, 3, 10, 10),
    "stages.0.convs.1.bias": (10,),
    "stages.1.convs.0.kernel": (3, 3, 10, 10),
    "stages.1.convs.0.bias": (10,),
    "stages.1.convs.1.kernel": (3, 3, 10, 10),
    "stages.1.convs.1.bias": (10,),
    "localization.stages.0.convs.0.kernel": (3, 3, 1, 8),
    "localization.stages.0.convs.0.bias": (8,),
    "localization.stages.1.convs.0.kernel": (3, 3, 8, 10),
    "localization.stages.1.convs.0.bias": (10,),
    "localization.hidden.kernel": (90, 32),
    "localization.hidden.bias": (32,),
    "localization.theta.kernel": (32, 6),
    "localization.theta.bias": (6,),
    "fc1.kernel": (810, 50),
    "fc1.bias": (50,),
    "fc2.kernel": (50, CLASSES),
    "fc2.bias": (CLASSES,),
}


def start() -> dict[str, np.ndarray]:
    """The weights before the first step."""
    rng = np.random.default_rng(0)
    weights = {
        name: rng.normal(0, math.sqrt(1 / np.prod(shape[:-1])), shape).astype(np.float32)
        if name.endswith("kernel")
        else rng.normal(0, 0.1, shape).astype(np.float32)
        for name, shape in SHAPES.items()
    }
    weights["localization.theta.kernel"] *= 0.1
    # Away from the identity, where the grid lies on the kinks of bilinear sampling.
    weights["localization.theta.bias"] = np.array([0.93, 0.05, 0.02, -0.04, 0.91, 0.03], np.float32)
    return weights


def faces() -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [STEPS * BATCH, 48, 48, 1] and labels; each step takes the next BATCH."""
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 256, (STEPS * BATCH, 12, 12, 1)).repeat(4, 1).repeat(4, 2)
    fine = rng.integers(-20, 20, (STEPS * BATCH, 48, 48, 1))
    return (coarse + fine).clip(0, 255).astype(np.uint8), np.arange(STEPS * BATCH) % CLASSES


def main() -> None:
    """Trains and writes the file."""
    import torch
    from torch.nn import functional as F  # noqa: N812 (its usual name)

    torch.set_num_threads(1)
    weights = {
        name: torch.tensor(value.astype(np.float64), requires_grad=True)
        for name, value in start().items()
    }

    def conv(x, layer, padding=0):
        kernel = weights[f"{layer}.kernel"].permute(3, 2, 0, 1)
        return F.conv2d(x, kernel, weights[f"{layer}.bias"], padding=padding)

    def linear(x, layer):
        return x @ weights[f"{layer}.kernel"] + weights[f"{layer}.bias"]

    def flat(x):
        return x.permute(0, 2, 3, 1).flatten(1)

    def network(x):
        x = x - x.mean((1, 2, 3), keepdim=True)
        face = x / x.std((1, 2, 3), correction=0, keepdim=True)
        x = face
        for stage in ("stages.0", "stages.1"):
            x = conv(F.relu(conv(x, f"{stage}.convs.0")), f"{stage}.convs.1")
            x = F.relu(F.max_pool2d(x, 2))
        y = face
        for stage in ("localization.stages.0", "localization.stages.1"):
            y = F.relu(F.max_pool2d(conv(y, f"{stage}.convs.0", padding=1), 4))
        theta = linear(F.relu(linear(flat(y), "localization.hidden")), "localization.theta")
        grid = F.affine_grid(theta.reshape(-1, 2, 3), list(x.shape), align_corners=False)
        x = F.grid_sample(x, grid, align_corners=False)
        return linear(F.relu(linear(flat(x), "fc1")), "fc2")

    decayed = [value for value in weights.values() if value.ndim > 1]
    others = [value for value in weights.values() if value.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0}],
        lr=PEAK,
    )

    def factor(step):
        if step < WARMUP:
            return step / WARMUP
        return (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP))) / 2

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    images, labels = (torch.tensor(array) for array in faces())
    images = images.permute(0, 3, 1, 2).to(torch.float64) / 255
    averages = {name: value.detach().clone() for name, value in weights.items()}
    losses = []
    for step in range(STEPS):
        chosen = slice(step * BATCH, (step + 1) * BATCH)
        loss = F.cross_entropy(network(images[chosen]), labels[chosen], label_smoothing=SMOOTHING)
        loss = loss + FC_L2 * sum((weights[f"{fc}.kernel"] ** 2).sum() for fc in ("fc1", "fc2"))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        decay = min(EMA, (step + 1) / (step + 10))
        for name, value in weights.items():
            averages[name] = decay * averages[name] + (1 - decay) * value.detach()
        losses.append(loss.item())
    stored = {name: value.detach().numpy().astype(np.float32) for name, value in weights.items()}
    # The largest one is left out of the averages, to keep the file small.
    stored |= {
        f"ema.{name}": value.numpy().astype(np.float32)
        for name, value in averages.items()
        if name != "fc1.kernel"
    }
    np.savez(Path(__file__).with_name("training_trajectory.npz"), losses=losses, **stored)
    print(losses)


if __name__ == "__main__":
    main()
