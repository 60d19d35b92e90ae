"""The wide network on FER-2013, fine-tuned on faces that are also blurred, dark, bright and noisy.

Half of the training images look like small faces in poor pictures; the labels are the network's
own on the unchanged faces. docs/experiments.md has the results, and why the shipped network is
another.

python main.py --config configs/fer2013_wide_robust.py --config.manual_dir=PATH
"""

from ml_collections import ConfigDict

from configs import fer2013_wide


def get_config() -> ConfigDict:
    """The recipe of the wide network with degraded images, fewer epochs and a lower rate."""
    config = fer2013_wide.finetune(fer2013_wide.get_config())
    config.num_epochs = 6
    config.recipe.teacher_share = 1.0
    config.recipe.learning_rate = 3e-4
    config.augmentation.mixup = 0.0
    config.augmentation.degrade = 0.5
    return config
