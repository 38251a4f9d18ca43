// The page's program: an ONNX file of lucid in ONNX Runtime Web.
import * as ort from "./ort/ort.wasm.min.mjs";

const input = document.querySelector("input");
const canvas = document.querySelector("canvas");
const list = document.querySelector("ol");

ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;
ort.env.wasm.numThreads = 1; // more need a server that isolates the page

const model = new Uint8Array(await (await fetch("model.onnx")).arrayBuffer());
const { class_names: names, preprocessing } = metadata(model);
const session = await ort.InferenceSession.create(model);

input.addEventListener("change", async () => {
  const [file] = input.files;
  if (!file) return;
  try {
    show(await classify(await createImageBitmap(file)));
  } catch (error) {
    list.textContent = `This picture can't be read: ${error.message}`;
  }
});
input.disabled = false;

/** The logit of each class. */
async function classify(picture) {
  const side = preprocessing.resolution;
  const square = preprocessing.crop_fraction * Math.min(picture.width, picture.height);
  const [left, top] = [(picture.width - square) / 2, (picture.height - square) / 2];
  canvas.hidden = false;
  canvas.width = canvas.height = side;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, left, top, square, square, 0, 0, side, side);
  const { data } = context.getImageData(0, 0, side, side); // red, green, blue, alpha
  const bytes = new Uint8Array(3 * side * side).map((_, i) => data[4 * Math.floor(i / 3) + (i % 3)]);
  const images = new ort.Tensor("uint8", bytes, [1, side, side, 3]);
  return (await session.run({ images })).logits.data;
}

/** List the best three classes with their probabilities. */
function show(logits) {
  const largest = Math.max(...logits);
  const powers = Array.from(logits, (logit) => Math.exp(logit - largest));
  const sum = powers.reduce((total, power) => total + power, 0);
  const best = [...powers.keys()].sort((a, b) => powers[b] - powers[a]).slice(0, 3);
  list.replaceChildren(
    ...best.map((index) => {
      const item = document.createElement("li");
      item.textContent = `${names[index]} ${((100 * powers[index]) / sum).toFixed(1)}%`;
      return item;
    }),
  );
}

/** metadata_props of an ONNX file, which ONNX Runtime Web does not give: JSON values by name. */
function metadata(file) {
  const found = {};
  for (const [field, entry] of fields(file)) {
    if (field !== 14) continue; // onnx.proto, ModelProto
    const texts = [...fields(entry)].map(([, value]) => new TextDecoder().decode(value));
    try {
      found[texts[0]] = JSON.parse(texts[1]);
    } catch {
      found[texts[0]] = texts[1];
    }
  }
  return found;
}

/** Number and content of each field of a protobuf message; of those with a length only. */
function* fields(message) {
  let place = 0;
  const number = () => {
    let value = 0;
    for (let factor = 1; ; factor *= 128) {
      const byte = message[place++];
      value += (byte & 127) * factor;
      if (byte < 128) return value;
    }
  };
  while (place < message.length) {
    const tag = number();
    const kind = tag & 7;
    if (kind === 0) number();
    else if (kind === 2) {
      const length = number();
      yield [tag >> 3, message.subarray(place, place + length)];
      place += length;
    } else place += kind === 1 ? 8 : 4;
  }
}
