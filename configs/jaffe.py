"""The paper's network on JAFFE: 213 images of 10 women.

python main.py --config configs/jaffe.py --config.manual_dir=PATH            # the paper's split
python eval.py cross-validate --config configs/jaffe.py --config.manual_dir=PATH
"""

from ml_collections import ConfigDict

from configs import small_data


def get_config() -> ConfigDict:
    """The settings for small data."""
    config = small_data.get_config()
    config.dataset = "jaffe"
    return config
