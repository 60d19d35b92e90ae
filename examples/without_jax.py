"""Predict the expressions of faces with NumPy, Pillow and ONNX Runtime, without JAX.

deep-emotion export --onnx fer.onnx
python examples/without_jax.py fer.onnx photo.jpg
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


class Faces:
    """A predictor from the files of `deep-emotion export --onnx`, given the network's path."""

    def __init__(self, network):
        self.about = json.loads(Path(f"{network}.json").read_text())
        files = (self.about["files"][name] for name in ("detector", "network"))
        paths = (str(Path(network).with_name(file)) for file in files)
        cpu = ["CPUExecutionProvider"]
        self.detector, self.network = (
            onnxruntime.InferenceSession(path, providers=cpu) for path in paths
        )

    def __call__(self, picture):
        """Map a Pillow image to its faces, largest first: box, roll, score, probabilities."""
        picture = ImageOps.exif_transpose(picture).convert("RGB")
        faces = sorted(self.find(picture), key=lambda face: -face["box"][2])
        for face in faces:
            grey = cut(picture, face["box"], face["roll"], 48).convert("L")
            pixels = np.asarray(grey, np.float32) / 255
            images = np.stack([pixels, pixels[:, ::-1]])[..., None]
            logits = self.network.run(["logits"], {"images": images})[0] / self.about["temperature"]
            powers = np.exp(logits - logits.max(axis=1, keepdims=True))
            shares = (powers / powers.sum(axis=1, keepdims=True)).mean(axis=0)
            face["probabilities"] = dict(zip(self.about["classes"], shares.tolist(), strict=True))
        return faces

    def find(self, picture):
        """Detect faces in the picture, then each face again in its own view, twice if rolled."""
        scale = max(1, max(picture.size) / self.about["detector"]["side"])
        size = [max(1, round(length / scale)) for length in picture.size]
        for face in self.look(picture.resize(size, Image.Resampling.BILINEAR)):
            face["box"] = [value * scale for value in face["box"]]
            face = self.closer(picture, face)
            yield self.closer(picture, face) if face["roll"] else face

    def closer(self, picture, face):
        """Detect the same face again in an upright view that it fills."""
        size, in_view = (self.about["detector"][name] for name in ("view", "face_in_view"))
        roll, whole = face["roll"], face["box"][2] * size / in_view
        centre = middle(face["box"])
        pixels = cut(picture, (*centre - whole / 2, whole), roll, size)
        seen = [
            other
            for other in self.look(pixels)
            if np.abs(middle(other["box"]) - size / 2).max() < in_view / 3
        ]
        if not seen:
            return face
        side = seen[0]["box"][2] * whole / size
        away = complex(*(middle(seen[0]["box"]) / size - 0.5) * whole)
        away *= np.exp(1j * np.radians(roll))
        x, y = centre[0] + away.real, centre[1] + away.imag
        return {
            "box": [float(x - side / 2), float(y - side / 2), side],
            "roll": self.level(roll + seen[0]["lean"]),
            "score": seen[0]["score"],
        }

    def look(self, picture):
        """Run the detector on a picture of its input size; return faces, best first."""
        rules, (width, height) = self.about["detector"], picture.size
        canvas = np.zeros((-(-height // 32) * 32, -(-width // 32) * 32, 3), np.uint8)
        canvas[:height, :width] = picture
        rows = self.detector.run(None, {"picture": canvas[None]})[0].astype(float)
        rows = rows[rows[:, 0] >= rules["min_score"]]
        found = []
        while len(rows):
            best = rows[rows[:, 0].argmax()]
            low, high = np.maximum(rows[:, 1:3], best[1:3]), np.minimum(rows[:, 3:5], best[3:5])
            inside = (high - low).clip(0).prod(axis=1)
            area, areas = (best[3:5] - best[1:3]).prod(), (rows[:, 3:5] - rows[:, 1:3]).prod(axis=1)
            overlap = inside / (area + areas - inside)
            same = rows[overlap > rules["same_box"]]
            score, mean = float(best[0]), np.average(same, axis=0, weights=same[:, 0])
            rows = rows[overlap <= rules["same_face"]]
            side = rules["frame_side"] * np.sqrt((mean[3:5] - mean[1:3]).prod())
            left, top = (mean[1:3] + mean[3:5]) / 2 - side / 2
            right_eye, left_eye, _, *mouth = mean[5:].reshape(5, 2)
            across, down = left_eye - right_eye, sum(mouth) - left_eye - right_eye
            lean = float(np.degrees(np.arctan2(across[1] - down[0], across[0] + down[1])))
            box = [float(left), float(top), float(side)]
            found.append({"box": box, "roll": self.level(lean), "lean": lean, "score": score})
        return found

    def level(self, lean):
        """Return the angle to turn a rolled face, or 0 if it is too small to matter."""
        return lean if abs(lean) > self.about["detector"]["level_above"] else 0.0


def middle(box):
    """Return the centre (x, y) of a box."""
    return np.array(box[:2]) + box[2] / 2


def cut(picture, box, roll, size):
    """Crop a square, turn it upright and scale it to `size`; repeat the edge of the picture."""
    left, top, side = box
    margin = side / 4 + 2  # Turning needs the corners, shrinking some pixels around.
    first_x, first_y = int(np.floor(left - margin)), int(np.floor(top - margin))
    span = np.arange(int(side + 2 * margin) + 2)
    rows = (first_y + span).clip(0, picture.height - 1)
    columns = (first_x + span).clip(0, picture.width - 1)
    around = Image.fromarray(np.asarray(picture)[rows[:, None], columns])
    x, y = left - first_x, top - first_y
    around = around.rotate(roll, Image.Resampling.BICUBIC, center=(x + side / 2, y + side / 2))
    edges = (x, y, x + side, y + side)
    return around.resize((size, size), Image.Resampling.BILINEAR, box=edges)


if __name__ == "__main__":
    faces = Faces(sys.argv[1])
    for path in sys.argv[2:]:
        for face in faces(Image.open(path)):
            label, share = max(face["probabilities"].items(), key=lambda item: item[1])
            print(f"{path}: {label} {share:.2f}, box {[round(value) for value in face['box']]}")
