// Runs a net of face-api as its author ships it, on TensorFlow.js's plain CPU backend, to compare face_api.py with.
//
//     node original.js FOLDER NET SIZE IMAGES
//
// FOLDER holds what fetch.py fetched; IMAGES is a file of float32, [N, SIZE, SIZE, 3] in 0..255. Prints a JSON array
// for each image.

const fs = require("fs");
const vm = require("vm");

const [folder, name, size, images] = process.argv.slice(2);
const side = Number(size);

// Written for browsers: it looks for a window, and would take node for a platform that the bundle left out.
globalThis.window = globalThis;
globalThis.document = {};
console.log = () => {}; // a greeting of TensorFlow.js
vm.runInThisContext(fs.readFileSync(`${folder}/face-api.js`, "utf8"));
const { tf, env, NetInput } = faceapi;
env.setEnv({ Canvas: class {}, readFile: (path) => fs.promises.readFile(path) });

async function main() {
  await tf.setBackend("cpu");
  const net = new faceapi[name]();
  await net.loadFromDisk(folder);
  const bytes = fs.readFileSync(images);
  const pixels = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  const length = side * side * 3;
  for (let at = 0; at < pixels.length; at += length) {
    const image = tf.tensor3d(pixels.slice(at, at + length), [side, side, 3]);
    const found = net.forwardInput(new NetInput([image]));
    const outputs = found.age ? [found.age, found.gender] : [found];
    process.stdout.write(JSON.stringify(outputs.flatMap((output) => [...output.dataSync()])) + "\n");
  }
}

main().catch((error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exit(1);
});
