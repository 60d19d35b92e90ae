// Finds faces as deep_emotion_jax/data/detectors.py does: a search, then each face again by itself.
import { candidates, framed, levelled } from "./candidates.js";
import { around, centreOf, crop, meets, toPicture } from "./crop.js";
import { blank, reduce, resize, within } from "./resample.js";

export class Detector {
  /** `run` maps an RGB image to YuNet's rows; `rules` is `detector` of model.json. */
  constructor(run, rules) {
    this.run = run;
    this.rules = rules;
  }

  /**
   * The faces {box, score, landmarks, roll} of an RGB picture, largest first. A quick search, for
   * frames of a camera, uses half the size and misses small faces.
   */
  async find(picture, quick = false) {
    const faces = [];
    const found = quick
      ? await this.search(picture, this.rules.view) : await this.candidates(picture);
    for (let face of framed(found, this.rules)) {
      face = await this.refined(picture, face);
      if (levelled(face.roll, this.rules)) face = await this.refined(picture, face);
      faces.push({ ...face, roll: levelled(face.roll, this.rules) });
    }
    return faces
      .filter(({ box }) => meets(box, picture))
      .sort((a, b) => b.box.side - a.box.side || a.box.left - b.box.left || a.box.top - b.box.top);
  }

  async candidates(picture) {
    const { side, small, view } = this.rules;
    const longer = Math.max(picture.width, picture.height);
    let found = await this.search(picture, side);
    const smallest = found.length ? Math.min(...found.map(({ box }) => box[3] - box[1])) : 0;
    if (longer > 2 * side && smallest < small * longer / side) {
      found = [...found, ...await this.search(picture, 2 * side)];
    }
    if (!found.length) {
      const [shrunk, scale] = shrink(picture, Math.floor(view * 2 / 3));
      const border = Math.floor(Math.max(shrunk.width, shrunk.height, 3) / 4);
      found = await this.search(bordered(shrunk, border), view, (v) => (v - border) * scale);
    }
    return found;
  }

  /** Candidates at a longer side of at most `longer` pixels. */
  async search(picture, longer, map = (v) => v) {
    const { side, canvases, min_score: minScore } = this.rules;
    const [shrunk, scale] = shrink(picture, longer);
    const factor = Math.max(1, Math.floor(longer / side));
    const [rows, columns] = canvases.find(
      ([high, wide]) => shrunk.height <= factor * high && shrunk.width <= factor * wide);
    const canvas = blank(factor * columns, factor * rows, 3);
    for (let y = 0; y < shrunk.height; y++) {
      const line = 3 * shrunk.width;
      canvas.data.set(shrunk.data.subarray(y * line, (y + 1) * line), 3 * y * canvas.width);
    }
    return candidates(await this.run(canvas), minScore, (v) => map(v * scale));
  }

  /** Detect a face again in an upright view in which it has `face_in_view` pixels. */
  async refined(picture, face) {
    const { view: size, face_in_view: inView, min_score: minScore } = this.rules;
    const view = around(...centreOf(face.box), face.box.side * size / inView);
    if (!meets(view, picture)) return face;
    const turn = levelled(face.roll, this.rules);
    const rows = await this.run(crop(picture, view, turn, size, false));
    const seen = framed(candidates(rows, minScore, (v) => v), this.rules).filter(
      ({ box }) => Math.max(...centreOf(box).map((v) => Math.abs(v - size / 2))) < inView / 3);
    if (!seen.length) return face;
    const found = seen.reduce((a, b) => (b.score > a.score ? b : a));
    const place = (x, y) => toPicture(view, [x / size, y / size], turn);
    return {
      box: around(...place(...centreOf(found.box)), found.box.side * view.side / size),
      score: Math.max(face.score, found.score),
      landmarks: [0, 2, 4, 6, 8].flatMap((i) => place(...found.landmarks.slice(i, i + 2))),
      roll: turn + found.roll,
    };
  }
}

/** The picture shrunk to a longer side of at most `longer` pixels, and the factor. */
function shrink(picture, longer) {
  const { width, height } = picture;
  const scale = Math.max(width, height) / longer;
  if (scale <= 1) return [picture, 1];
  const size = [width, height].map((v) => Math.max(1, roundHalfEven(v / scale)));
  // Pillow's reducing_gap of 2: blocks are averaged first.
  const factors = [Math.floor(width / size[0] / 2) || 1, Math.floor(height / size[1] / 2) || 1];
  const edges = [0, 0, width / factors[0], height / factors[1]];
  return [resize(reduce(picture, ...factors), ...size, edges), scale];
}

/** Python's `round`. */
function roundHalfEven(value) {
  const floor = Math.floor(value);
  return value - floor === 0.5 ? floor + floor % 2 : Math.round(value);
}

function bordered({ data, width, height }, border) {
  const result = blank(width + 2 * border, height + 2 * border, 3);
  let at = 0;
  for (let y = -border; y < height + border; y++) {
    for (let x = -border; x < width + border; x++) {
      const from = 3 * (within(y, height) * width + within(x, width));
      for (let channel = 0; channel < 3; channel++) result.data[at++] = data[from + channel];
    }
  }
  return result;
}
