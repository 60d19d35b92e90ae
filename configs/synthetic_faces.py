"""The paper's network on generated faces; the default of main.py, without downloads.

python main.py --workdir runs/synthetic_faces
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """The default config with fewer epochs, enough for 10,000 easy faces."""
    config = default.get_config()
    config.num_epochs = 25
    return config
