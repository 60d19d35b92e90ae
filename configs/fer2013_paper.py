r"""The paper's recipe on FER-2013, followed as literally as possible.

From the paper, as commonly quoted: Adam, constant learning rate 0.005, 500 epochs, Gaussian
weights with standard deviation 0.05, cross-entropy + lambda * ||w||^2 of the two fully connected
layers, unspecified augmentation. Not given, and chosen here: lambda = 0.001 (the quoted weight
decay), batch size 128, dropout 0.5, mirroring as the only augmentation.

52.0 ± 1.4 % of PublicTest after epoch 500, 53.1 ± 1.1 % in the best epoch (mean and standard
deviation of seeds 0 to 2; 2026-11-24 and 25; 96 to 105 minutes a seed on one core; see
docs/experiments.md).

    python main.py --config configs/fer2013_paper.py --config.manual_dir=PATH \
        --workdir runs/fer2013_paper
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """Constant learning rate, no averaging, the paper's initialisation and loss."""
    config = default.get_config()
    config.dataset = "fer2013"
    config.num_epochs = 500
    config.model.init = "gaussian"
    config.model.dropout = 0.5
    config.recipe.learning_rate = 5e-3
    config.recipe.schedule = "constant"
    config.recipe.fc_l2 = 1e-3
    config.recipe.ema_decay = 0.0
    return config
