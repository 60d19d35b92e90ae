"""Settings shared by the datasets of 200 to 1,000 posed faces (ck_plus, jaffe)."""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """Many steps of small batches, strong augmentation, and a slow localization network.

    At the full rate, theta moves off the feature map on small data, and the classifier sees zeros.
    """
    config = default.get_config()
    config.protocol = "paper"
    config.num_epochs, config.num_steps = 0, 5000
    config.model.dropout = 0.1
    config.recipe.batch_size = 32
    config.recipe.optimizer = "muon"
    config.recipe.learning_rate = 4e-3
    config.recipe.localization_rate = 0.1
    config.recipe.warmup_steps = 300
    config.recipe.weight_decay = 0.1
    config.recipe.label_smoothing = 0.1
    config.recipe.ema_decay = 0.99
    config.augmentation.shift = 0.08
    config.augmentation.rotate = 10.0
    config.augmentation.scale = 0.08
    config.augmentation.contrast = 0.2
    return config


def finetune(config: ConfigDict) -> ConfigDict:
    """Changes a config for small data to start from the FER-2013 weights."""
    config.init_from = "deep_emotion.fer2013"
    config.num_steps = 1500
    config.recipe.learning_rate = 1e-3
    config.recipe.warmup_steps = 100
    return config
