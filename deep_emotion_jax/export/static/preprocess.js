// From pixels to the network's input, with the same integers as Pillow, which the network was
// trained and is tested with: ITU-R 601 luma, then a triangle filter that averages when it shrinks.

const SIZE = 48;
const BITS = 22; // of Pillow's fixed-point weights

/** Grey of RGBA pixels, as Pillow's convert("L"). */
export function greyOf(rgba) {
  const grey = new Uint8Array(rgba.length / 4);
  for (let i = 0, j = 0; i < grey.length; i++, j += 4) {
    grey[i] = (rgba[j] * 19595 + rgba[j + 1] * 38470 + rgba[j + 2] * 7471 + 0x8000) >> 16;
  }
  return grey;
}

/**
 * The square {left, top, side} of a grey picture, resized to 48 x 48 as `crop` of
 * deep_emotion_jax/data/crop.py does; beyond the edge of the picture its edge is repeated.
 */
export function faceImage(grey, width, height, { left, top, side }) {
  const [columns, rows] = [weights(left, side), weights(top, side)];
  const last = rows[SIZE - 1];
  const firstRow = rows[0].first, lastRow = last.first + last.taps.length;
  // First along the rows, then along the columns, rounded in between.
  const narrow = new Uint8Array((lastRow - firstRow) * SIZE);
  for (let y = firstRow; y < lastRow; y++) {
    const line = within(y, height) * width;
    columns.forEach(({ first, taps }, x) => {
      narrow[(y - firstRow) * SIZE + x] = sum(taps, (i) => grey[line + within(first + i, width)]);
    });
  }
  const face = new Uint8Array(SIZE * SIZE);
  rows.forEach(({ first, taps }, y) => {
    for (let x = 0; x < SIZE; x++) {
      face[y * SIZE + x] = sum(taps, (i) => narrow[(first + i - firstRow) * SIZE + x]);
    }
  });
  return face;
}

/** The nearest index of an axis of this size. */
function within(index, size) {
  return Math.min(size - 1, Math.max(0, index));
}

function sum(taps, pixel) {
  let total = 2 ** (BITS - 1);
  for (let i = 0; i < taps.length; i++) total += taps[i] * pixel(i);
  return Math.min(255, Math.max(0, Math.floor(total / 2 ** BITS)));
}

/** For each of 48 pixels, the first source pixel, which may be outside, and the weights from there. */
function weights(start, side) {
  const scale = side / SIZE;
  const reach = Math.max(scale, 1);
  return Array.from({ length: SIZE }, (_, i) => {
    const centre = start + (i + 0.5) * scale;
    const first = Math.floor(centre - reach + 0.5);
    const last = Math.floor(centre + reach + 0.5);
    const taps = [];
    for (let x = first; x < last; x++) {
      taps.push(Math.max(0, 1 - Math.abs((x - centre + 0.5) / reach)));
    }
    const total = taps.reduce((a, b) => a + b);
    return { first, taps: taps.map((v) => Math.trunc(0.5 + v / total * 2 ** BITS)) };
  });
}
