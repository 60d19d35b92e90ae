"""CK+, fine-tuned from the shipped FER-2013 weights; the paper trains from scratch.

python main.py --config configs/ck_plus_finetune.py --config.manual_dir=PATH
python eval.py cross-validate --config configs/ck_plus_finetune.py --config.manual_dir=PATH
"""

from ml_collections import ConfigDict

from configs import ck_plus, small_data


def get_config() -> ConfigDict:
    """The settings for small data, with fewer steps and a lower learning rate."""
    return small_data.finetune(ck_plus.get_config())
