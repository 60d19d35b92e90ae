"""The paper's network on FERG: 55,767 renders of six cartoon characters.

python main.py --config configs/ferg.py --config.manual_dir=PATH            # the paper's split
python eval.py cross-validate --config configs/ferg.py --config.manual_dir=PATH
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """The default config with fewer epochs: the renders are many and clean."""
    config = default.get_config()
    config.dataset = "ferg"
    config.protocol = "paper"
    config.num_epochs = 20
    config.recipe.warmup_steps = 266  # an epoch
    config.augmentation.shift = 0.06
    return config
