"""Defaults shared by all experiments; deep_emotion_jax/training/config.py lists all settings."""

import dataclasses

from ml_collections import ConfigDict

from deep_emotion_jax.training.config import Experiment


def get_config() -> ConfigDict:
    """All settings with their defaults."""
    return ConfigDict(dataclasses.asdict(Experiment()))
