"""The paper's network on CK+: 981 frames of 118 people.

python main.py --config configs/ck_plus.py --config.manual_dir=PATH            # the paper's split
python eval.py cross-validate --config configs/ck_plus.py --config.manual_dir=PATH
"""

from ml_collections import ConfigDict

from configs import small_data


def get_config() -> ConfigDict:
    """The settings for small data."""
    config = small_data.get_config()
    config.dataset = "ck_plus"
    return config
