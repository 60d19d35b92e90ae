// The picture with its faces, and one card per face.
import { FACE_SIDE, toPicture } from "./crop.js";
import { attended } from "./classifier.js";

const LARGEST = 960; // longer side of the drawn picture in pixels
// Okabe & Ito's colours, distinct in all common forms of colour blindness.
const COLOURS = ["#e69f00", "#56b4e9", "#009e73", "#f0e442", "#d55e00", "#cc79a7"];

/** Draw the picture with numbered boxes; shade the outside of `square` if given. */
export function drawPicture(canvas, picture, faces, square) {
  const scale = Math.min(1, LARGEST / Math.max(picture.width, picture.height));
  canvas.width = Math.max(1, Math.round(picture.width * scale));
  canvas.height = Math.max(1, Math.round(picture.height * scale));
  const context = canvas.getContext("2d");
  context.drawImage(picture.canvas, 0, 0, canvas.width, canvas.height);
  if (square) shade(context, canvas, square, scale);
  const unit = Math.max(canvas.width, canvas.height) / 320;
  context.lineWidth = 1.5 * unit;
  context.font = `600 ${Math.round(9 * unit)}px system-ui, sans-serif`;
  context.textBaseline = "bottom";
  faces.forEach((face, i) => {
    const corners = [[0, 0], [1, 0], [1, 1], [0, 1]].map(
      (corner) => toPicture(face.box, corner, face.roll).map((v) => v * scale));
    context.strokeStyle = colour(i);
    polygon(context, corners);
    label(context, canvas, `${i + 1} ${face.expression}`, face, scale, unit, i);
  });
  const names = faces.map(({ expression }, i) => `${i + 1} ${expression}`).join(", ");
  canvas.setAttribute("aria-label", `The picture. Faces: ${names || "none"}`);
}

function label(context, canvas, text, { box }, scale, unit, i) {
  const width = context.measureText(text).width + 4 * unit, height = 12 * unit;
  const left = Math.max(0, Math.min(box.left * scale, canvas.width - width));
  const bottom = Math.max(height, box.top * scale);
  context.fillStyle = colour(i);
  context.fillRect(left, bottom - height, width, height);
  context.fillStyle = "#000";
  context.fillText(text, left + 2 * unit, bottom - unit);
}

function shade(context, canvas, { left, top, side }, scale) {
  context.fillStyle = "#0008";
  context.beginPath();
  context.rect(0, 0, canvas.width, canvas.height);
  context.rect(left * scale, top * scale, side * scale, side * scale);
  context.fill("evenodd");
}

function colour(i) {
  return COLOURS[i % COLOURS.length];
}

function polygon(context, corners) {
  context.beginPath();
  for (const [x, y] of corners) context.lineTo(x, y);
  context.closePath();
  context.stroke();
}

/** The card of a face: input of the network, expression, notes, and a bar per class. */
export function card(face, i, model) {
  const article = element("article", "card");
  const title = element("h2", "expression", face.expression);
  const number = element("span", "number", String(i + 1));
  number.style.background = colour(i);
  title.prepend(number);
  const said = element("div", "said");
  said.append(title);
  if (face.notes.length) said.append(element("p", "notes", `Less certain: ${face.notes.join(", ")}`));
  const head = element("div", "head");
  head.append(seen(face, model), said);
  article.append(head, ...face.probabilities.map((share, k) =>
    bar(model.classes[k], share, model.classes[k] === face.expression)));
  return article;
}

function element(kind, name, text = "") {
  const made = document.createElement(kind);
  made.className = name;
  made.textContent = text;
  return made;
}

function bar(name, share, best) {
  const made = element("div", best ? "bar best" : "bar");
  made.dataset.probability = share;
  const track = element("div", "track");
  track.append(element("div", ""));
  track.firstChild.style.width = `${100 * share}%`;
  made.append(
    element("span", "", name), track, element("span", "share", `${(100 * share).toFixed(1)} %`));
  return made;
}

/** The input of the network, 48 x 48 grey pixels, with the attended region. */
function seen({ pixels, theta }, model) {
  const canvas = element("canvas", "seen");
  canvas.width = canvas.height = 4 * FACE_SIDE;
  canvas.setAttribute("aria-label", "The face as the input of the network");
  const small = new OffscreenCanvas(FACE_SIDE, FACE_SIDE);
  const image = new ImageData(FACE_SIDE, FACE_SIDE);
  pixels.forEach((v, i) => image.data.set([v, v, v, 255], 4 * i));
  small.getContext("2d").putImageData(image, 0, 0);
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
  if (theta) {
    context.lineWidth = 3;
    context.strokeStyle = "#e8a33d";
    polygon(context, attended(theta, model.region_span).map(
      ([x, y]) => [x * canvas.width, y * canvas.height]));
  }
  return canvas;
}
