"""Soft labels from teacher networks, for distillation (Hinton et al. 2015)."""

from collections.abc import Sequence

import numpy as np

from deep_emotion_jax.data.split import Split
from deep_emotion_jax.errors import UserError
from deep_emotion_jax.nn.logits import predict_mean
from deep_emotion_jax.nn.weights import Trained
from deep_emotion_jax.runtime.blocks import blocks

TAUGHT_AT_ONCE = 1024  # images


def with_teachers(
    data: Split, teachers: Sequence[Trained], index: np.ndarray, class_names: Sequence[str]
) -> Split:
    """Adds soft labels: the teachers' mean probabilities over each face and its mirror image.

    Takes minutes for many images and a large teacher, and shows a progress bar on a terminal.

    Args:
      data: the examples.
      teachers: networks that saw none of the validation and test examples in training.
      index: int [A], the training examples. Only they get soft labels; the others get zeros.
      class_names: the K classes of the labels.

    Raises:
      UserError: if the classes of a teacher differ.
    """
    for teacher in teachers:
        if list(teacher.classes) != list(class_names):
            raise UserError(
                f"the teacher's classes are {list(teacher.classes)}, those of the images "
                f"{list(class_names)}; choose a teacher with the same classes"
            )
    soft = np.zeros((len(data.labels), len(class_names)), np.float32)
    size = min(len(index), TAUGHT_AT_ONCE)
    for places in blocks(len(index), size, "soft labels"):
        block = index[places]
        faces = data.images[block]
        views = (faces, faces[:, :, ::-1])
        soft[block] = np.mean([np.exp(predict_mean(t.model, views)) for t in teachers], axis=0)
    return data._replace(soft_labels=soft)
