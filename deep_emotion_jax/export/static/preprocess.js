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

/** The square {left, top, side} of a grey picture, resized to 48 x 48. */
export function faceImage(grey, width, height, { left, top, side }) {
  const [columns, rows] = [weights(left, side, width), weights(top, side, height)];
  // First along the rows, then along the columns, rounded in between.
  const firstRow = Math.floor(top), lastRow = Math.min(height, Math.ceil(top + side));
  const narrow = new Uint8Array((lastRow - firstRow) * SIZE);
  for (let y = firstRow; y < lastRow; y++) {
    columns.forEach(({ first, taps }, x) => {
      narrow[(y - firstRow) * SIZE + x] = sum(taps, (i) => grey[y * width + first + i]);
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

function sum(taps, pixel) {
  let total = 2 ** (BITS - 1);
  for (let i = 0; i < taps.length; i++) total += taps[i] * pixel(i);
  return Math.min(255, Math.max(0, Math.floor(total / 2 ** BITS)));
}

/** For each of 48 pixels, the first source pixel and the weights from there on. */
function weights(start, side, size) {
  // The frame is cut out in whole pixels before it is resized.
  const low = Math.floor(start), high = Math.min(size, Math.ceil(start + side));
  const scale = (Math.min(start + side, high) - start) / SIZE;
  const reach = Math.max(scale, 1);
  return Array.from({ length: SIZE }, (_, i) => {
    const centre = start - low + (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - reach + 0.5));
    const last = Math.min(high - low, Math.trunc(centre + reach + 0.5));
    const taps = [];
    for (let x = first; x < last; x++) {
      taps.push(Math.max(0, 1 - Math.abs((x - centre + 0.5) / reach)));
    }
    const total = taps.reduce((a, b) => a + b);
    return { first: first + low, taps: taps.map((v) => Math.trunc(0.5 + v / total * 2 ** BITS)) };
  });
}
