// Reasons why a prediction may be wrong, as in deep_emotion_jax/inference/quality.py.
import { FACE_SIDE as SIDE } from "./crop.js";

/** Any of "small", "blurred", "dark" and "profile"; `limits` is `notes` of model.json. */
export function notes({ pixels, box, landmarks }, limits) {
  const spread = deviation(pixels);
  const marks = {
    small: box.side < limits.small,
    blurred: deviation(laplacian(pixels)) / Math.max(spread, 1) < limits.sharpness,
    dark: spread < limits.contrast,
    profile: landmarks && Math.abs(turn(landmarks)) > limits.profile,
  };
  return Object.keys(marks).filter((name) => marks[name]);
}

function laplacian(pixels) {
  const result = [];
  for (let y = 1; y < SIDE - 1; y++) {
    for (let at = y * SIDE + 1; at < (y + 1) * SIDE - 1; at++) {
      result.push(pixels[at - SIDE] + pixels[at + SIDE] + pixels[at - 1] + pixels[at + 1]
        - 4 * pixels[at]);
    }
  }
  return result;
}

function deviation(values) {
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  return Math.sqrt(values.reduce((a, v) => a + (v - mean) ** 2, 0) / values.length);
}

/** How far a head is turned to the side: 0 from the front, beyond 0.3 nearly in profile. */
function turn([rightX, rightY, leftX, leftY, noseX, noseY, mouthX, mouthY, cornerX, cornerY]) {
  const acrossX = leftX - rightX, acrossY = leftY - rightY;
  const downX = (mouthX + cornerX - rightX - leftX) / 2;
  const downY = (mouthY + cornerY - rightY - leftY) / 2;
  const beside = (noseX - (rightX + leftX) / 2) * acrossX + (noseY - (rightY + leftY) / 2) * acrossY;
  return beside / Math.max(Math.hypot(acrossX, acrossY) * Math.hypot(downX, downY), 1e-9);
}
