"""Soft labels from trained networks, for a smaller network to learn from (Hinton et al. 2015)."""

from collections.abc import Sequence

import jax
import numpy as np

from deep_emotion_jax.data.split import Split
from deep_emotion_jax.errors import UserError
from deep_emotion_jax.nn.logits import predict_logits
from deep_emotion_jax.nn.weights import Trained


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
    soft = np.zeros((len(data.labels), len(class_names)), np.float32)
    soft[index] = jax.nn.softmax(predict_logits(teacher.model, data.images[index], flip=True))
    return data._replace(soft_labels=soft)
