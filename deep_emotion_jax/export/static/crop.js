// Crops squares of a picture, as deep_emotion_jax/data/crop.py does. A box is {left, top, side} in
// pixels; it may extend beyond the picture, whose edge is then repeated.
import { bicubic, bilinear, blank, greyOf, reduce, resize, rotate, within } from "./resample.js";

export const FACE_SIDE = 48;

/** The square with this centre. */
export function around(x, y, side) {
  return { left: x - side / 2, top: y - side / 2, side };
}

export function centreOf({ left, top, side }) {
  return [left + side / 2, top + side / 2];
}

/** Whether a box overlaps a picture and its side is from 1 pixel to twice the longer side. */
export function meets({ left, top, side }, { width, height }) {
  return side >= 1 && side <= 2 * Math.max(width, height) &&
    left > -side && left < width && top > -side && top < height;
}

/** Maps a point of the crop, in units of its side, to the picture. */
export function toPicture(box, [x, y], roll = 0) {
  const [centreX, centreY] = centreOf(box);
  const [right, down] = turned((x - 0.5) * box.side, (y - 0.5) * box.side, roll);
  return [right + centreX, down + centreY];
}

function turned(x, y, degrees) {
  const sine = Math.sin(degrees * Math.PI / 180), cosine = Math.cos(degrees * Math.PI / 180);
  return [x * cosine - y * sine, x * sine + y * cosine];
}

/** Crop a square of an RGB picture, rotated upright by `roll` degrees, and scale it to `size`. */
export function crop(picture, box, roll = 0, size = FACE_SIDE, grey = true) {
  let [x, y] = centreOf(box), { side } = box;
  const reach = side / 2 * (roll ? Math.SQRT2 : 1);
  const margin = Math.ceil(side / size) + 2; // pixels around the square that the filter reads
  const left = Math.floor(x - reach) - margin, top = Math.floor(y - reach) - margin;
  let part = region(
    picture, left, top, Math.ceil(x + reach) + margin, Math.ceil(y + reach) + margin);
  if (grey) part = greyOf(part);
  x -= left;
  y -= top;
  if (roll) {
    const factor = Math.max(1, Math.floor(side / size / 3));
    part = reduce(part, factor);
    [x, y, side] = [x / factor, y / factor, side / factor];
    part = rotate(part, roll, x, y, grey ? bicubic : bilinear);
  }
  return resize(part, size, size, [x - side / 2, y - side / 2, x + side / 2, y + side / 2]);
}

function region({ data, width, height }, left, top, right, bottom) {
  const result = blank(right - left, bottom - top, 3);
  let at = 0;
  for (let y = top; y < bottom; y++) {
    const line = within(y, height) * width;
    for (let x = left; x < right; x++) {
      const from = 3 * (line + within(x, width));
      result.data[at++] = data[from];
      result.data[at++] = data[from + 1];
      result.data[at++] = data[from + 2];
    }
  }
  return result;
}
