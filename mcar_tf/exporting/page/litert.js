// A picture file in, the model's answer out, computed in this browser by LiteRT.

import { loadAndCompile, loadLiteRt, Tensor } from "@litertjs/core";
import { decode, resize } from "./picture.js";

export const promise = "Everything is computed in this browser. No picture leaves your machine.";

const LARGEST_DIFFERENCE = 5e-3; // of a probability by WebGPU from the same by WebAssembly

/**
 * Load the runtime and the model.
 *
 * The runtime is built in three ways: for threads, which a browser gives to isolated pages; to wait for a GPU, which
 * needs a GPU and JSPI; and for one thread. No build does two of these.
 *
 * @param {object} settings of the page: model, image_size, litert
 * @param {(runtime: string) => void} say is told the outcome when WebGPU has been tried
 */
export async function load(settings, say) {
  const beside = new URL(settings.litert, location).origin === location.origin;
  const threads = globalThis.crossOriginIsolated === true && beside; // no worker starts from another host's script
  const gpu = !threads && (await hasGpu());
  await loadLiteRt(settings.litert, { threads, jspi: gpu });
  const file = await fetch(settings.model);
  if (!file.ok) throw new Error(`${settings.model} is not there (${file.status})`);
  const content = new Uint8Array(await file.arrayBuffer());
  const engine = new Engine(settings, await loadAndCompile(content, { accelerator: "wasm" }));
  await engine.run("global_only", engine.grey());
  const runtime = `WebAssembly, ${threads ? "several threads" : "one thread"}`;
  if (gpu) {
    engine.tryWebGpu(content, runtime).then(say, (error) => {
      console.warn(error);
      say(`${runtime} (WebGPU failed)`);
    });
  }
  return {
    runtime: gpu ? `${runtime}, trying WebGPU` : runtime,
    look: (blob, ...more) => engine.look(blob, ...more),
    lookAt: engine.canAim ? (...what) => engine.lookAt(...what) : undefined,
  };
}

/** Whether there is a GPU that the runtime can use; one that the processor imitates is none. */
async function hasGpu() {
  if (!("Suspending" in WebAssembly)) return false; // JSPI, by which WebAssembly waits for a GPU
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  return Boolean(adapter) && !adapter.info?.isFallbackAdapter;
}

/** A signature's regions, none where it has none; a box is ymin xmin ymax xmax as fractions of the picture. */
function readBoxes({ boxes: sides = [], box_classes = [] }) {
  const boxes = [];
  for (let i = 0; i < sides.length; i += 4) boxes.push(sides.slice(i, i + 4));
  return { boxes, box_classes };
}

class Engine {
  constructor(settings, model) {
    this.size = settings.image_size;
    this.model = model;
    this.canAim = "look_at" in model.signatures;
    this.queue = Promise.resolve();
  }

  grey() {
    return new Float32Array(this.size * this.size * 3).fill(127);
  }

  /** One signature's named outputs as plain arrays; one call at a time. */
  run(signature, pixels, boxes, model = this.model) {
    const turn = this.queue.then(() => this.#run(signature, pixels, boxes, model));
    this.queue = turn.catch(() => {});
    return turn;
  }

  async #run(signature, pixels, boxes, model) {
    const inputs = { image: new Tensor(pixels, [1, this.size, this.size, 3]) };
    if (boxes) inputs.boxes = new Tensor(Float32Array.from(boxes), [1, 1, 4]);
    let outputs = {};
    try {
      outputs = await model.run(signature, inputs);
      const plain = {};
      for (const [name, tensor] of Object.entries(outputs)) plain[name] = Array.from(await tensor.data());
      return plain;
    } finally {
      for (const tensor of [...Object.values(inputs), ...Object.values(outputs)]) if (!tensor.deleted) tensor.delete();
    }
  }

  /**
   * Look at a picture.
   * @param {Blob} blob
   * @param {(answer: object) => Promise<void>} firstSeen is given the first look's answer before the second is taken
   */
  async look(blob, firstSeen) {
    const pixels = resize(await decode(blob), this.size);
    const times = {};
    if (firstSeen) {
      const started = performance.now();
      const seen = await this.run("global_only", pixels);
      times.first = performance.now() - started;
      await firstSeen({ ...readBoxes(seen), probs: seen.global_probs, global_probs: seen.global_probs, times });
    }
    const started = performance.now();
    const outputs = await this.run("mcar", pixels);
    times.both = performance.now() - started;
    const { probs, global_probs } = outputs;
    if (!probs.every(Number.isFinite)) throw new Error("the model's answer holds no numbers: its file is damaged");
    return { ...readBoxes(outputs), probs, global_probs, times };
  }

  /** Probabilities of what is inside a box: ymin xmin ymax xmax as fractions of the picture. */
  async lookAt(blob, box) {
    const pixels = resize(await decode(blob), this.size);
    const started = performance.now();
    const { probs } = await this.run("look_at", pixels, box);
    return { probs, time: performance.now() - started };
  }

  /**
   * Change over to WebGPU if it gives the same answers faster. WebAssembly still does what the runtime can't on a GPU:
   * of our files, it takes the network of the first look and no crops.
   * @param {string} runtime the one before
   * @returns {Promise<string>} the one after, and why it did not change
   */
  async tryWebGpu(content, runtime) {
    const model = await loadAndCompile(content, { accelerator: "webgpu", gpuOptions: { precision: "fp32" } });
    const pixels = this.grey().map((_, i) => (i * 7919) % 256);
    const [ours, ourTime] = await this.#timed(pixels, this.model);
    const [theirs, theirTime] = await this.#timed(pixels, model);
    const same = ours.every((p, i) => Math.abs(p - theirs[i]) <= LARGEST_DIFFERENCE);
    if (same && theirTime < ourTime) {
      this.model = model;
      return model.isFullyAccelerated ? "WebGPU" : "WebGPU, and WebAssembly for the rest";
    }
    model.delete();
    return `${runtime} (WebGPU ${same ? "is slower" : "gives other answers"})`;
  }

  async #timed(pixels, model) {
    await this.run("mcar", pixels, undefined, model); // the first call also prepares
    const started = performance.now();
    const { probs } = await this.run("mcar", pixels, undefined, model);
    return [probs, performance.now() - started];
  }
}
