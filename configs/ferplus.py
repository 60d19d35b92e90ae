"""The paper's network on FER-2013's faces with FER+ labels: 8 classes, ten votes per face.

python main.py --config configs/ferplus.py --config.manual_dir=PATH --workdir runs/ferplus
"""

from ml_collections import ConfigDict

from configs import fer2013


def get_config() -> ConfigDict:
    """The FER-2013 recipe on votes, without its teacher, whose classes differ."""
    return train_on_votes(fer2013.get_config())


def train_on_votes(config: ConfigDict) -> ConfigDict:
    """Changes a config for FER-2013 to FER+'s votes, without its teacher, whose classes differ."""
    config.dataset_config = "ferplus"
    config.labels = "votes"
    config.teacher = ""
    config.recipe.teacher_share = 0.0
    return config
