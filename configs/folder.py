r"""Your own classes: fine-tune the FER-2013 network on a folder with one subfolder per class.

    python main.py --config configs/folder.py --config.manual_dir=PATH --workdir runs/mine

Then `python -m deep_emotion_jax predict --model runs/mine/weights/official-seed-0.safetensors`.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """A short training with a low learning rate from shipped weights; any number of classes."""
    config = default.get_config()
    config.dataset = "folder"
    config.init_from = "deep_emotion.fer2013"
    config.num_epochs, config.num_steps = 0, 600
    config.recipe.batch_size = 32
    config.recipe.learning_rate = 1e-3
    config.recipe.label_smoothing = 0.1
    config.recipe.ema_decay = 0.99
    config.augmentation.shift = 0.06
    config.augmentation.rotate = 10.0
    config.augmentation.contrast = 0.2
    return config
