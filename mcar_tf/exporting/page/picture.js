// A picture file in; upright pixels of the model's size out, resized as training resizes them.

export const MOST_PIXELS = 50e6;
const MOST_BYTES = 100 * 2 ** 20;
const BAND_PIXELS = 4e6; // rows that are read from the canvas at a time

/** An error whose message is for people. */
export class NotAPicture extends Error {}

/**
 * Decode a file: upright, on white, its own levels of brightness (no colour management: training has none).
 * @param {Blob} blob
 * @returns {Promise<OffscreenCanvas|HTMLCanvasElement>}
 */
export async function decode(blob) {
  if (blob.size === 0) throw new NotAPicture("an empty file");
  if (blob.size > MOST_BYTES) throw new NotAPicture("too large: more than 100 MB");
  const start = new TextDecoder("latin1").decode(await blob.slice(0, 256).arrayBuffer());
  if (/^\s*(<\?xml|<!|<svg|<html)/i.test(start.replace(/^ï»¿/, ""))) throw new NotAPicture("not a picture");
  const { width, height } = await sizeOf(blob);
  if (width * height > MOST_PIXELS) throw new NotAPicture(`too large: ${width} × ${height} pixels, 50 megapixels are the most`);
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  } catch {
    throw new NotAPicture("not a picture, or a damaged one");
  }
  const canvas = makeCanvas(bitmap.width, bitmap.height);
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  if (!pen) throw new NotAPicture("too large for this browser");
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.drawImage(bitmap, 0, 0);
  bitmap.close();
  return canvas;
}

/** Width and height, which browsers know before they decode the rest. */
function sizeOf(blob) {
  const address = URL.createObjectURL(blob);
  const image = new Image();
  return new Promise((resolve, reject) => {
    image.onload = () => resolve({ width: image.naturalWidth, height: image.naturalHeight });
    image.onerror = () => reject(new NotAPicture("not a picture, or a damaged one"));
    image.src = address;
  }).finally(() => URL.revokeObjectURL(address));
}

function makeCanvas(width, height) {
  if (typeof OffscreenCanvas !== "undefined") return new OffscreenCanvas(width, height);
  return Object.assign(document.createElement("canvas"), { width, height });
}

/**
 * Warp a canvas to a square: bilinear with antialiasing, as Pillow and `tf.image.resize(antialias=True)` do.
 * @param canvas of any size
 * @param {number} size side of the result in px
 * @returns {Float32Array} size * size * 3, row by row, R G B in [0, 255]
 */
export function resize(canvas, size) {
  const { width, height } = canvas;
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  const across = spans(width, size), down = spans(height, size);
  const narrow = new Float32Array(height * size * 3); // every row, already as wide as the result
  const rows = Math.max(1, Math.floor(BAND_PIXELS / width));
  for (let top = 0; top < height; top += rows) {
    const band = pen.getImageData(0, top, width, Math.min(rows, height - top)).data;
    for (let y = 0; y < band.length / (4 * width); y++) {
      for (let x = 0; x < size; x++) {
        const { start, weights } = across[x];
        let r = 0, g = 0, b = 0;
        for (let k = 0, at = 4 * (y * width + start); k < weights.length; k++, at += 4) {
          r += weights[k] * band[at];
          g += weights[k] * band[at + 1];
          b += weights[k] * band[at + 2];
        }
        const to = 3 * ((top + y) * size + x);
        narrow[to] = r;
        narrow[to + 1] = g;
        narrow[to + 2] = b;
      }
    }
  }
  const row = 3 * size;
  const result = new Float32Array(size * row);
  for (let y = 0; y < size; y++) {
    const { start, weights } = down[y];
    for (let k = 0; k < weights.length; k++) {
      const from = (start + k) * row;
      for (let x = 0; x < row; x++) result[y * row + x] += weights[k] * narrow[from + x];
    }
  }
  return result;
}

/** For each of `count` new pixels the old ones that it is a mean of, and their weights: a triangle's height. */
function spans(length, count) {
  const scale = length / count;
  const reach = Math.max(1, scale); // to each side, in old pixels
  return Array.from({ length: count }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const start = Math.max(0, Math.floor(centre - reach + 0.5));
    const end = Math.min(length, Math.floor(centre + reach + 0.5));
    const heights = [];
    for (let x = start; x < end; x++) heights.push(Math.max(0, 1 - Math.abs((x + 0.5 - centre) / reach)));
    const sum = heights.reduce((a, b) => a + b, 0);
    return { start, weights: Float64Array.from(heights, (h) => h / sum) };
  });
}
