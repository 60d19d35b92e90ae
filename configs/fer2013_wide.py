"""A wider network on FER-2013: the same idea with nine convolutions, no extra data.

68.2 % of PublicTest (seed 0, epoch 40 of 40; 2026-11-25; 88 minutes, mostly on one core).

python main.py --config configs/fer2013_wide.py --config.manual_dir=PATH --workdir runs/fer2013_wide
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """Muon with weight decay as for the small network; BatchNorm, dropout, more augmentation."""
    config = default.get_config()
    config.dataset = "fer2013"
    config.num_epochs = 40
    config.recipe.warmup_steps = 225  # an epoch
    config.model.trunk = "wide"
    config.model.batch_norm = True
    config.model.dropout = 0.4
    config.recipe.optimizer = "muon"
    config.recipe.learning_rate = 4e-3
    config.recipe.weight_decay = 0.1
    config.recipe.label_smoothing = 0.1
    config.augmentation.shift = 0.08
    config.augmentation.rotate = 10.0
    config.augmentation.scale = 0.1
    config.augmentation.contrast = 0.2
    return config
