// Detector and network on ONNX Runtime: finds the faces of an RGB picture and their expressions.
import * as ort from "./ort.wasm.bundle.min.mjs";
import { Classifier } from "./classifier.js";
import { crop } from "./crop.js";
import { Detector } from "./detector.js";
import { notes } from "./quality.js";

ort.env.wasm.numThreads = 1; // threads need headers that a plain server does not send

export class Analysis {
  /** Load model.json and both networks. */
  static async load() {
    const model = await (await fetch("model.json")).json();
    const [detector, network] = await Promise.all(
      ["detector.onnx", "model.onnx"].map(
        (file) => ort.InferenceSession.create(file, { executionProviders: ["wasm"] })));
    return new Analysis(model, detector, network);
  }

  constructor(model, detector, network) {
    this.model = model;
    this.detector = new Detector(async ({ data, width, height }) => {
      const picture = new ort.Tensor("uint8", data, [1, height, width, 3]);
      return (await detector.run({ picture })).found.data;
    }, model.detector);
    this.classifier = new Classifier(async (data, shape) => {
      const { logits, theta } = await network.run({ images: new ort.Tensor("float32", data, shape) });
      return { logits: logits.data, theta: theta?.data };
    }, model);
  }

  /** The picture's faces, largest first; a given `box` replaces the search. */
  async faces(picture, { box, quick } = {}) {
    const found = box ? [{ box, roll: 0, score: 1 }] : await this.detector.find(picture, quick);
    const cuts = found.map((face) => crop(picture, face.box, face.roll).data);
    const answers = await this.classifier.classify(cuts);
    return found.map((face, i) => {
      const { probabilities, theta } = answers[i];
      const expression = this.model.classes[probabilities.indexOf(Math.max(...probabilities))];
      const seen = { ...face, pixels: cuts[i], probabilities, theta, expression };
      return { ...seen, notes: notes(seen, this.model.notes) };
    });
  }
}
