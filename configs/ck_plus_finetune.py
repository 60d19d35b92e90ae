"""CK+ from the shipped FER-2013 weights; the paper trains from scratch, so a row of its own.

python main.py --config configs/ck_plus_finetune.py --config.manual_dir=PATH
python eval.py cross-validate --config configs/ck_plus_finetune.py --config.manual_dir=PATH
"""

from ml_collections import ConfigDict

from configs import ck_plus


def get_config() -> ConfigDict:
    """The settings for small data, with smaller and fewer steps: much is learned already."""
    config = ck_plus.get_config()
    config.init_from = "deep_emotion.fer2013"
    config.num_steps = 1500
    config.recipe.learning_rate = 1e-3
    config.recipe.warmup_steps = 100
    return config
