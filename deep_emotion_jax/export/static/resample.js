// Resizing, reducing and rotating with the same integers as Pillow, with which the networks were
// trained and tested. An image is {data: Uint8Array, width, height, channels}, rows from the top.

const BITS = 22; // of Pillow's fixed-point weights

/** Resize the part of an image between four edges with a triangle filter that averages when it shrinks. */
export function resize(image, width, height, edges = [0, 0, image.width, image.height]) {
  const [left, top, right, bottom] = edges;
  const columns = filter(left, right, width, image.width);
  const rows = filter(top, bottom, height, image.height);
  return alongColumns(alongRows(image, columns, rows), rows);
}

/** The image with blocks of factor x factor pixels averaged; blocks at the edges may be smaller. */
export function reduce(image, factorX, factorY = factorX) {
  if (factorX <= 1 && factorY <= 1) return image;
  const { data, channels } = image;
  const result = blank(
    Math.ceil(image.width / factorX), Math.ceil(image.height / factorY), channels);
  let at = 0;
  for (let y = 0; y < result.height; y++) {
    const lastY = Math.min(image.height, (y + 1) * factorY);
    for (let x = 0; x < result.width; x++) {
      const lastX = Math.min(image.width, (x + 1) * factorX);
      const area = (lastX - x * factorX) * (lastY - y * factorY);
      for (let channel = 0; channel < channels; channel++) {
        let total = area >> 1;
        for (let row = y * factorY; row < lastY; row++) {
          for (let column = x * factorX; column < lastX; column++) {
            total += data[(row * image.width + column) * channels + channel];
          }
        }
        result.data[at++] = Math.floor(total / area);
      }
    }
  }
  return result;
}

/**
 * The image rotated counterclockwise about a centre; outside is black. `weights` are `bicubic` or
 * `bilinear`.
 */
export function rotate(image, degrees, centreX, centreY, weights) {
  const { data, width, height, channels } = image;
  const angle = -degrees * Math.PI / 180;
  const cosine = Math.cos(angle), sine = Math.sin(angle);
  const result = blank(width, height, channels);
  const count = weights(0).length;
  const columns = new Int32Array(count);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const right = x + 0.5 - centreX, down = y + 0.5 - centreY;
      const fromX = cosine * right + sine * down + centreX;
      const fromY = -sine * right + cosine * down + centreY;
      if (fromX < 0 || fromX >= width || fromY < 0 || fromY >= height) continue;
      const firstX = Math.floor(fromX - 0.5), firstY = Math.floor(fromY - 0.5);
      const across = weights(fromX - 0.5 - firstX), along = weights(fromY - 0.5 - firstY);
      for (let i = 0; i < count; i++) {
        columns[i] = within(firstX + i + 1 - count / 2, width) * channels;
      }
      for (let channel = 0; channel < channels; channel++) {
        let value = 0;
        for (let row = 0; row < count; row++) {
          const line = within(firstY + row + 1 - count / 2, height) * width * channels + channel;
          for (let i = 0; i < count; i++) value += along[row] * across[i] * data[line + columns[i]];
        }
        result.data[(y * width + x) * channels + channel] = Math.min(255, Math.max(0, value));
      }
    }
  }
  return result;
}

/** Weights of four pixels in a row for a point at `part` of the way between the middle two. */
export function bicubic(part) {
  const square = part * part, cube = square * part;
  return [2 * square - cube - part, 1 - 2 * square + cube, part + square - cube, cube - square];
}

export function bilinear(part) {
  return [1 - part, part];
}

/** Grey of an RGB image by ITU-R 601 luma. */
export function greyOf({ data, width, height }) {
  const result = blank(width, height, 1);
  for (let i = 0, j = 0; i < result.data.length; i++, j += 3) {
    result.data[i] = (data[j] * 19595 + data[j + 1] * 38470 + data[j + 2] * 7471 + 0x8000) >> 16;
  }
  return result;
}

/** The nearest index of an axis of this size. */
export function within(index, size) {
  return Math.min(size - 1, Math.max(0, index));
}

/** An image of zeros. */
export function blank(width, height, channels) {
  return { data: new Uint8Array(width * height * channels), width, height, channels };
}

/** For each of `count` pixels between two edges: the first source pixel, and the weights from there. */
function filter(start, end, count, limit) {
  const scale = (end - start) / count;
  const reach = Math.max(scale, 1);
  return Array.from({ length: count }, (_, i) => {
    const centre = start + (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - reach + 0.5));
    const last = Math.min(limit, Math.trunc(centre + reach + 0.5));
    const weights = [];
    for (let x = first; x < last; x++) {
      weights.push(Math.max(0, 1 - Math.abs((x - centre + 0.5) / reach)));
    }
    const total = weights.reduce((a, b) => a + b, 0) || 1;
    return { first, weights: Int32Array.from(weights, (v) => 0.5 + v / total * 2 ** BITS) };
  });
}

/** The rows that will be read, with their columns resampled. */
function alongRows({ data, width, channels }, columns, rows) {
  const last = rows[rows.length - 1];
  const firstRow = rows[0].first, height = last.first + last.weights.length - firstRow;
  const result = blank(columns.length, height, channels);
  for (let y = 0; y < height; y++) {
    const line = (firstRow + y) * width;
    let at = y * columns.length * channels;
    for (const { first, weights } of columns) {
      for (let channel = 0; channel < channels; channel++) {
        let total = 1 << (BITS - 1), from = (line + first) * channels + channel;
        for (let i = 0; i < weights.length; i++, from += channels) total += weights[i] * data[from];
        result.data[at++] = total >> BITS;
      }
    }
  }
  return result;
}

function alongColumns({ data, width, channels }, rows) {
  const line = width * channels;
  const result = blank(width, rows.length, channels);
  const firstRow = rows[0].first;
  rows.forEach(({ first, weights }, y) => {
    for (let x = 0; x < line; x++) {
      let total = 1 << (BITS - 1), from = (first - firstRow) * line + x;
      for (let i = 0; i < weights.length; i++, from += line) total += weights[i] * data[from];
      result.data[y * line + x] = total >> BITS;
    }
  });
  return result;
}
