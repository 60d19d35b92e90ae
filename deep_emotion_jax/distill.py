"""Soft labels from trained networks, for a smaller network to learn from (Hinton et al. 2015)."""

from collections.abc import Sequence

import jax
import numpy as np

from deep_emotion_jax.data import Split
from deep_emotion_jax.errors import UserError
from deep_emotion_jax.train import make_logits, split_model
from deep_emotion_jax.weights import Trained


def with_teacher(
    data: Split, teacher: Trained, index: np.ndarray, class_names: Sequence[str]
) -> Split:
    """The data with a teacher's probabilities as soft labels, mean over each face and its mirror.

    Args:
      data: the examples.
      teacher: trained on training examples of the same data, so that nothing leaks.
      index: int [A], the training examples. Only they get soft labels, the others zeros.
      class_names: the K classes of the labels.

    Raises:
      UserError: if the teacher names other classes.
    """
    if list(teacher.classes) != list(class_names):
        raise UserError(
            f"the teacher names {list(teacher.classes)}, the images are labelled "
            f"{list(class_names)}: choose a teacher of the same classes"
        )
    program = jax.jit(make_logits(teacher.model))
    weights = split_model(teacher.model)
    images = data.images[index]
    soft = np.zeros((len(data.labels), len(class_names)), np.float32)
    for view in (images, images[:, :, ::-1]):
        soft[index] += np.asarray(jax.nn.softmax(program(*weights, view))) / 2
    return data._replace(soft_labels=soft)
