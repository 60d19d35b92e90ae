// The page: analyses the chosen picture or the frames of the camera, and draws the faces.
import { Analysis } from "./analysis.js";
import { card, drawPicture } from "./drawing.js";
import { Camera, fromFile } from "./source.js";

const at = (id) => document.getElementById(id);
const camera = new Camera();
let analysis, picture, faces = [];
let square = null; // {left, top, side} while a face is framed by hand
let running = false, again = false;

async function load() {
  analysis = await Analysis.load();
  say("");
  at("camera").disabled = false;
  if (at("file").files.length) await choose(at("file").files[0]); // chosen while it was loading
}

function say(text) {
  at("status").textContent = text;
}

async function choose(file) {
  if (!file || !analysis) return;
  stopCamera();
  try {
    picture = await fromFile(file);
  } catch {
    say(`${file.name} is not a picture that this browser can read.`);
    at("work").hidden = at("answer").hidden = true;
    return;
  }
  square = null;
  await update();
}

/** Analyse the picture, and again if it or the square has changed meanwhile. */
async function update() {
  again = true;
  if (running) return;
  running = true;
  try {
    while (again) {
      again = false;
      const start = performance.now();
      const shown = picture;
      faces = await analysis.faces(shown, { box: square, quick: camera.running });
      show(shown, performance.now() - start);
    }
  } finally {
    running = false;
  }
}

function show(shown, milliseconds) {
  drawPicture(at("picture"), shown, faces, square);
  at("faces").replaceChildren(...faces.map((face, i) => card(face, i, analysis.model)));
  at("answer").hidden = !faces.length;
  at("work").hidden = false;
  at("by-hand").hidden = camera.running;
  at("hand").checked = Boolean(square);
  at("frame").hidden = !square;
  at("picture").classList.toggle("draggable", Boolean(square));
  at("speed").textContent = `${Math.round(milliseconds)} ms`;
  at("speed").dataset.milliseconds = milliseconds;
  const none = "No face found.";
  say(faces.length ? "" : camera.running ? none : `${none} You can select one by hand.`);
}

async function runCamera() {
  say("Waiting for the camera …");
  try {
    await camera.start();
  } catch (error) {
    say(error.message);
    return;
  }
  at("camera").textContent = "Stop the camera";
  square = null;
  while (camera.running) {
    picture = camera.frame();
    await update();
    await new Promise(requestAnimationFrame);
  }
}

function stopCamera() {
  camera.stop();
  at("camera").textContent = "Use the camera";
  if (picture) at("by-hand").hidden = false;
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

function largestSide() {
  return Math.min(picture.width, picture.height);
}

function drag(event) {
  if (!event.buttons || !square) return;
  const box = at("picture").getBoundingClientRect();
  place(
    (event.clientX - box.left) * picture.width / box.width,
    (event.clientY - box.top) * picture.height / box.height, square.side);
}

function move(event) {
  const [x, y] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[
    event.key] ?? [0, 0];
  if (!square || !(x || y)) return;
  event.preventDefault();
  const { left, top, side } = square;
  place(left + side / 2 + x * side / 20, top + side / 2 + y * side / 20, side);
}

at("file").addEventListener("change", () => choose(at("file").files[0]));
at("camera").addEventListener("click", () => (camera.running ? stopCamera() : runCamera()));
at("hand").addEventListener("change", () => {
  if (!at("hand").checked) {
    square = null;
    update();
    return;
  }
  at("size").value = 100;
  place(picture.width / 2, picture.height / 2, largestSide());
});
at("picture").addEventListener("pointerdown", (event) => {
  if (square) at("picture").setPointerCapture(event.pointerId);
  drag(event);
});
at("picture").addEventListener("pointermove", drag);
at("picture").addEventListener("keydown", move);
at("size").addEventListener("input", () => {
  const side = Math.max(1, largestSide() * at("size").value / 100);
  place(square.left + square.side / 2, square.top + square.side / 2, side);
});
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  choose(event.dataTransfer.files[0]);
});
addEventListener("paste", (event) => choose(event.clipboardData.files[0]));
load().catch((error) => say(`The networks cannot be loaded: ${error.message}`));
