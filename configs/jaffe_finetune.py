"""JAFFE, fine-tuned from the shipped FER-2013 weights; the paper trains from scratch.

python main.py --config configs/jaffe_finetune.py --config.manual_dir=PATH
python eval.py cross-validate --config configs/jaffe_finetune.py --config.manual_dir=PATH
"""

from ml_collections import ConfigDict

from configs import jaffe, small_data


def get_config() -> ConfigDict:
    """The settings for small data, with fewer steps and a lower learning rate."""
    return small_data.finetune(jaffe.get_config())
