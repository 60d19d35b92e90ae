"""What every experiment shares; each config changes what it must and tells its result."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """All settings there are, with their defaults."""
    config = ConfigDict()
    config.seed = 0

    config.dataset = "synthetic_faces"  # a folder of datasets/
    config.dataset_config = ""  # one of the builder's configs; empty: its first
    config.manual_dir = ""  # the raw data: a folder, or the downloaded file itself
    config.data_dir = "data"  # the prepared data
    config.protocol = "official"  # or "paper", "subjects": see deep_emotion_jax.data.folds

    config.init_from = ""  # weights to start from: a shipped network or a .safetensors file
    config.teacher = ""  # a trained network to learn from: a shipped name or a .safetensors file

    config.model = ConfigDict()  # arguments of deep_emotion_jax.nn.model.DeepEmotion
    config.model.attention = "features"
    config.model.localization = "figure"
    config.model.trunk = "figure"
    config.model.batch_norm = False
    config.model.width = 1.0
    config.model.dropout = 0.2
    config.model.init = "he"

    config.recipe = ConfigDict()  # deep_emotion_jax.training.epoch.Recipe
    config.recipe.batch_size = 128
    config.recipe.learning_rate = 3e-3
    config.recipe.optimizer = "adam"
    config.recipe.schedule = "cosine"
    config.recipe.warmup_epochs = 1.0
    config.recipe.weight_decay = 0.0
    config.recipe.fc_l2 = 0.0
    config.recipe.label_smoothing = 0.0
    config.recipe.teacher_share = 0.0  # weight of the soft labels of config.teacher
    config.recipe.ema_decay = 0.999
    config.num_epochs = 60
    config.seconds_between_checkpoints = 15.0

    config.augmentation = ConfigDict()  # deep_emotion_jax.training.augment.Augmentation
    config.augmentation.flip = True
    config.augmentation.shift = 0.0
    config.augmentation.rotate = 0.0
    config.augmentation.scale = 0.0
    config.augmentation.contrast = 0.0
    config.augmentation.erase = 0.0
    return config
