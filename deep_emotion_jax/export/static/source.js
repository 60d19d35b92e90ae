// Pictures from files and from the camera: {canvas, width, height, data, channels}, data in RGB.

const MAX_SIDE = 4096; // larger pictures are scaled down

/** Draw a source on a canvas and read its pixels. */
export function pictureOf(source, width, height) {
  const scale = Math.min(1, MAX_SIDE / Math.max(width, height));
  const canvas = new OffscreenCanvas(
    Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale)));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white"; // behind transparent pixels, as in the Python package
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
  const rgba = context.getImageData(0, 0, canvas.width, canvas.height).data;
  const data = new Uint8Array(rgba.length / 4 * 3);
  for (let i = 0, j = 0; j < rgba.length; j += 4) {
    data[i++] = rgba[j];
    data[i++] = rgba[j + 1];
    data[i++] = rgba[j + 2];
  }
  return { canvas, width: canvas.width, height: canvas.height, data, channels: 3 };
}

/** A picture file, upright by its EXIF tag. Throws if the browser cannot read it. */
export async function fromFile(file) {
  const bitmap = await createImageBitmap(file);
  try {
    return pictureOf(bitmap, bitmap.width, bitmap.height);
  } finally {
    bitmap.close();
  }
}

export class Camera {
  constructor() {
    this.video = document.createElement("video");
    this.video.muted = this.video.playsInline = true;
  }

  get running() {
    return Boolean(this.stream);
  }

  /** Ask for the camera. Throws an Error with a message for the visitor. */
  async start() {
    if (!navigator.mediaDevices) {
      throw new Error("The browser allows the camera only on pages from https or localhost.");
    }
    try {
      this.stream = await navigator.mediaDevices.getUserMedia(
        { video: { width: { ideal: 640 }, height: { ideal: 480 }, facingMode: "user" } });
    } catch (error) {
      throw new Error(error.name === "NotAllowedError"
        ? "The camera is blocked. Allow it for this page in the settings of the browser."
        : `No camera is available: ${error.message}`);
    }
    this.video.srcObject = this.stream;
    await this.video.play();
  }

  stop() {
    this.stream?.getTracks().forEach((track) => track.stop());
    this.stream = this.video.srcObject = null;
  }

  /** The current frame as a picture. */
  frame() {
    return pictureOf(this.video, this.video.videoWidth, this.video.videoHeight);
  }
}
