// Classifies cropped faces as deep_emotion_jax/inference/predictor.py does: the mean over a
// face and its mirror image of the softmax of logits / temperature.
import { FACE_SIDE as SIDE, toPicture } from "./crop.js";

const BATCH = 4; // faces at a time, to limit memory
const PIXELS = SIDE * SIDE;

export class Classifier {
  /** `run` maps [N, 48, 48, 1] in [0, 1] to {logits, theta?}; `model` is model.json. */
  constructor(run, model) {
    this.run = run;
    this.model = model;
  }

  /** For each face of uint8 [48 * 48] grey pixels: {probabilities, theta}. */
  async classify(faces) {
    const answers = [];
    for (let first = 0; first < faces.length; first += BATCH) {
      answers.push(...await this.batch(faces.slice(first, first + BATCH)));
    }
    return answers;
  }

  async batch(faces) {
    const images = new Float32Array(2 * faces.length * PIXELS);
    faces.forEach((face, i) => {
      for (let at = 0; at < PIXELS; at++) {
        const mirrored = at - at % SIDE + SIDE - 1 - at % SIDE;
        images[i * PIXELS + at] = face[at] / 255;
        images[(faces.length + i) * PIXELS + mirrored] = face[at] / 255;
      }
    });
    const { logits, theta } = await this.run(images, [2 * faces.length, SIDE, SIDE, 1]);
    const count = this.model.classes.length;
    const shares = (row) => softmax(
      Array.from(logits.slice(row * count, (row + 1) * count), (v) => v / this.model.temperature));
    return faces.map((_, i) => {
      const mirrored = shares(faces.length + i);
      return {
        probabilities: shares(i).map((v, k) => (v + mirrored[k]) / 2),
        theta: theta && Array.from(theta.slice(6 * i, 6 * i + 6)),
      };
    });
  }
}

/** Corners of the attended region: in units of the crop, or in pixels of the picture if `box` is given. */
export function attended(theta, span, box, roll) {
  return [[-1, -1], [1, -1], [1, 1], [-1, 1]].map(([x, y]) => {
    const point = [0, 3].map(
      (row) => ((theta[row] * x + theta[row + 1] * y + theta[row + 2]) * span + 1) / 2);
    return box ? toPicture(box, point, roll) : point;
  });
}

function softmax(logits) {
  const top = Math.max(...logits);
  const powers = logits.map((v) => Math.exp(v - top));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((v) => v / sum);
}
