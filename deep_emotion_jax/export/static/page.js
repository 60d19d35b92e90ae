// Runs model.onnx on the square of a picture that the visitor frames.
import * as ort from "./ort.wasm.bundle.min.mjs";
import { faceImage, greyOf } from "./preprocess.js";

const SIZE = 48;
const MAX_SIDE = 4096; // of the pixels that are kept; larger pictures are scaled down
const at = (id) => document.getElementById(id);
let session, model;
let picture, square; // {canvas, grey, width, height}, {left, top, side}
let running = false, again = false;

ort.env.wasm.numThreads = 1; // threads need headers that a plain server does not send

async function load() {
  model = await (await fetch("model.json")).json();
  session = await ort.InferenceSession.create("model.onnx", { executionProviders: ["wasm"] });
  at("region").hidden = !model.outputs.includes("theta");
  at("status").textContent = "";
  if (at("file").files.length) await choose(); // chosen while the network was loading
}

async function choose() {
  const file = at("file").files[0];
  if (!file || !session) return;
  let bitmap;
  try {
    bitmap = await createImageBitmap(file); // upright by its EXIF tag
  } catch {
    at("status").textContent = `${file.name} is not a picture that this browser can read.`;
    at("work").hidden = at("answer").hidden = true;
    return;
  }
  const scale = Math.min(1, MAX_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = new OffscreenCanvas(
    Math.max(1, Math.round(bitmap.width * scale)), Math.max(1, Math.round(bitmap.height * scale)));
  const { width, height } = canvas;
  const context = canvas.getContext("2d");
  context.fillStyle = "white"; // behind transparent pixels, as in the Python package
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0, width, height);
  picture = { canvas, grey: greyOf(context.getImageData(0, 0, width, height).data), width, height };
  const side = Math.min(width, height);
  square = { left: (width - side) / 2, top: (height - side) / 2, side };
  at("size").value = 100;
  at("status").textContent = "";
  at("work").hidden = false;
  await update();
}

async function update() {
  drawPicture();
  again = true;
  if (running) return;
  running = true;
  try {
    while (again) { // the newest square, however fast it is dragged
      again = false;
      const face = faceImage(picture.grey, picture.width, picture.height, square);
      const images = new ort.Tensor("float32", Float32Array.from(face, (v) => v / 255), [1, SIZE, SIZE, 1]);
      const { logits, theta } = await session.run({ images });
      show(face, softmax(Array.from(logits.data, (v) => v / model.temperature)), theta?.data);
    }
  } finally {
    running = false;
  }
}

function softmax(logits) {
  const top = Math.max(...logits);
  const powers = Array.from(logits, (v) => Math.exp(v - top));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((v) => v / sum);
}

function show(face, shares, theta) {
  const best = shares.indexOf(Math.max(...shares));
  at("expression").textContent = model.classes[best];
  at("bars").replaceChildren(...shares.map((share, i) => {
    const bar = document.createElement("div");
    bar.className = i === best ? "bar best" : "bar";
    bar.dataset.probability = share;
    const [name, track, text] = ["span", "div", "span"].map((kind) => document.createElement(kind));
    name.textContent = model.classes[i];
    track.className = "track";
    track.append(document.createElement("div"));
    track.firstChild.style.width = `${100 * share}%`;
    text.className = "share";
    text.textContent = `${(100 * share).toFixed(1)} %`;
    bar.append(name, track, text);
    return bar;
  }));
  drawFace(face, theta);
  at("answer").hidden = false;
}

function drawFace(face, theta) {
  const canvas = at("face"), context = canvas.getContext("2d");
  const small = new OffscreenCanvas(SIZE, SIZE);
  const pixels = new ImageData(SIZE, SIZE);
  face.forEach((v, i) => pixels.data.set([v, v, v, 255], 4 * i));
  small.getContext("2d").putImageData(pixels, 0, 0);
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
  if (!theta) return;
  // Theta takes the corners of the square that the features span to those of the attended part.
  const place = (v) => (v * model.region_span + 1) / 2 * canvas.width;
  context.beginPath();
  for (const [x, y] of [[-1, -1], [1, -1], [1, 1], [-1, 1]]) {
    context.lineTo(
      place(theta[0] * x + theta[1] * y + theta[2]), place(theta[3] * x + theta[4] * y + theta[5]));
  }
  context.closePath();
  context.lineWidth = 3;
  context.strokeStyle = "#e8a33d";
  context.stroke();
}

function drawPicture() {
  const canvas = at("picture");
  const scale = 480 / Math.max(picture.width, picture.height);
  canvas.width = Math.max(1, Math.round(picture.width * scale));
  canvas.height = Math.max(1, Math.round(picture.height * scale));
  const context = canvas.getContext("2d");
  context.drawImage(picture.canvas, 0, 0, canvas.width, canvas.height);
  context.fillStyle = "#0008"; // shade what the network does not see
  const [left, top, side] = [square.left, square.top, square.side].map((v) => v * scale);
  context.beginPath();
  context.rect(0, 0, canvas.width, canvas.height);
  context.rect(left, top, side, side);
  context.fill("evenodd");
  context.strokeStyle = "#e8a33d";
  context.lineWidth = 3;
  context.strokeRect(left + 1.5, top + 1.5, Math.max(0, side - 3), Math.max(0, side - 3));
}

function place(centreX, centreY, side) {
  const clip = (v, high) => Math.min(Math.max(v, 0), high);
  square = {
    left: clip(centreX - side / 2, picture.width - side),
    top: clip(centreY - side / 2, picture.height - side),
    side,
  };
  update();
}

function drag(event) {
  if (!event.buttons) return;
  const canvas = at("picture"), box = canvas.getBoundingClientRect();
  place(
    (event.clientX - box.left) * picture.width / box.width,
    (event.clientY - box.top) * picture.height / box.height, square.side);
}

at("file").addEventListener("change", choose);
at("picture").addEventListener("pointerdown", (event) => {
  at("picture").setPointerCapture(event.pointerId);
  drag(event);
});
at("picture").addEventListener("pointermove", drag);
at("size").addEventListener("input", () => {
  const side = Math.max(1, Math.min(picture.width, picture.height) * at("size").value / 100);
  place(square.left + square.side / 2, square.top + square.side / 2, side);
});
load().catch((error) => {
  at("status").textContent = `The network cannot be loaded: ${error.message}`;
});
