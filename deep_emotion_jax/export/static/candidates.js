// Merges YuNet's candidates to framed faces, as deep_emotion_jax/data/detectors.py does. A
// candidate is {score, box: [left, top, right, bottom], landmarks: ten numbers, x and y of five points}.
import { around } from "./crop.js";

/** Candidates from the detector's rows of 15 numbers, by `map` from canvas to picture. */
export function candidates(rows, minScore, map) {
  const found = [];
  for (let at = 0; at < rows.length; at += 15) {
    if (!(rows[at] >= minScore)) continue;
    found.push({
      score: rows[at],
      box: Array.from(rows.subarray(at + 1, at + 5), map),
      landmarks: Array.from(rows.subarray(at + 5, at + 15), map),
    });
  }
  return found;
}

/** Faces {box, score, landmarks, roll}, each once. */
export function framed(found, rules) {
  return merged(found, rules).map(({ score, box, landmarks }) => {
    const [left, top, right, bottom] = box;
    const size = Math.sqrt(Math.max(0, right - left) * Math.max(0, bottom - top));
    return {
      box: around((left + right) / 2, (top + bottom) / 2, rules.frame_side * size),
      score, landmarks, roll: rollOf(landmarks),
    };
  });
}

/** Clockwise tilt in degrees, from the eyes and from eyes to mouth equally. */
function rollOf([rightX, rightY, leftX, leftY, , , mouthX, mouthY, cornerX, cornerY]) {
  const acrossX = leftX - rightX, acrossY = leftY - rightY;
  const downX = mouthX + cornerX - rightX - leftX, downY = mouthY + cornerY - rightY - leftY;
  return Math.atan2(acrossY - downX, acrossX + downY) * 180 / Math.PI;
}

/** The roll, or 0 if it is too small to correct. */
export function levelled(roll, rules) {
  return Math.abs(roll) > rules.level_above ? roll : 0;
}

/** Overlapping candidates merged to one per face, their mean weighted by score. */
function merged(found, rules) {
  let left = [...found].sort((a, b) => b.score - a.score);
  const kept = [];
  while (left.length) {
    const best = left[0], [x0, y0, x1, y1] = best.box;
    const overlaps = left.map(({ box }) => overlap(best.box, box));
    const same = left.filter((_, i) => i === 0 || overlaps[i] > rules.same_box);
    kept.push({
      score: best.score, box: mean(same, "box"), landmarks: mean(same, "landmarks"),
    });
    left = left.filter(({ box }, i) => {
      const x = (box[0] + box[2]) / 2, y = (box[1] + box[3]) / 2;
      const inside = x0 <= x && x <= x1 && y0 <= y && y <= y1;
      return i > 0 && !inside && overlaps[i] <= rules.same_face;
    });
  }
  return kept;
}

function mean(found, key) {
  const total = found.reduce((sum, { score }) => sum + score + 1e-9, 0);
  return found[0][key].map((_, i) =>
    found.reduce((sum, one) => sum + (one.score + 1e-9) * one[key][i], 0) / total);
}

/** Intersection over union. */
function overlap(a, b) {
  const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const height = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  const inside = Math.max(0, width) * Math.max(0, height);
  const area = ([left, top, right, bottom]) => (right - left) * (bottom - top);
  return inside / Math.max(1e-9, area(a) + area(b) - inside);
}
