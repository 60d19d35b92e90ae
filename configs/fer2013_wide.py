"""A wider network on FER-2013: the same idea with seven convolutions, no extra data.

67.8 % of PublicTest (seed 0, epoch 38 of 40; 2026-11-24; 63 minutes on two busy cores).

python main.py --config configs/fer2013_wide.py --config.manual_dir=PATH --workdir runs/fer2013_wide
"""

from ml_collections import ConfigDict

from configs import fer2013


def get_config() -> ConfigDict:
    """The recipe of the small network with BatchNorm, more dropout and more augmentation."""
    config = fer2013.get_config()
    config.num_epochs = 40
    config.model.trunk = "wide"
    config.model.batch_norm = True
    config.model.dropout = 0.4
    config.recipe.label_smoothing = 0.1
    config.augmentation.shift = 0.08
    config.augmentation.rotate = 10.0
    config.augmentation.scale = 0.1
    config.augmentation.contrast = 0.2
    return config
