"""Predict the expression in a picture, and show which pixels the prediction depends on.

    python examples/explain_picture.py photo.jpg --out explained.png

Needs the base install only.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deep_emotion_jax import Predictor
from deep_emotion_jax.inference import drawing


def main(arguments: Sequence[str] | None = None) -> None:
    """Print every face's probabilities and most important position, and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--out", type=Path, default=Path("explained.png"))
    options = parser.parse_args(arguments)

    predictor = Predictor.from_pretrained("deep_emotion_wide.fer2013")
    prediction = predictor.predict(options.picture)
    maps = []
    for face in prediction.faces:
        print(f"{face.expression}, box {[round(value) for value in face.box]}")
        for name, probability in sorted(face.probabilities.items(), key=lambda item: -item[1]):
            print(f"  {name:10} {probability:6.1%}")
        # The drop in the expression's probability when a part of the face is blurred.
        importance = predictor.importance(face)  # [48, 48]
        row, column = np.unravel_index(importance.argmax(), importance.shape)
        print(f"  blurring row {row}, column {column} of 48 costs {importance.max():.1%}")
        maps.append(importance)
    drawing.save(prediction, maps, options.out)
    print(f"{len(maps)} faces, drawn in {options.out}")


if __name__ == "__main__":
    main()
