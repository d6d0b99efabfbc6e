// SPDX-License-Identifier: Apache-2.0
// The worker: one file after the other, models kept. Between two steps it listens whether it is to stop.
import { build, type DecodeOptions, decodeFile, type Loaded, type Phase, type Raster } from "./engine.js";
import { load } from "./models.js";
import type { Runtime } from "./pixels.js";

export interface Ask {
  id: number;
  data: Uint8Array;
  options: DecodeOptions;
  /** Where the manifest and onnxruntime's files lie. */
  models: string;
  runtime: string;
  webgpu: boolean;
}

export type Message = Ask | { stop: number };

export type Answer =
  | { id: number; phase: Phase; done: number }
  | { id: number; preview: Raster }
  | { id: number; image: Raster }
  | { id: number; error: { name: string; message: string } };

const scope = globalThis as unknown as {
  postMessage(message: Answer, transfer: Transferable[]): void;
  onmessage: ((event: MessageEvent<Message>) => void) | null;
};

const PAUSE = 30; // milliseconds of work between two looks at the messages
const KEPT = 2; // models at once
const models = new Map<string, Promise<Loaded>>();
const stopped = new Set<number>();
let before: Promise<void> = Promise.resolve();
let runtime: Promise<Runtime> | undefined;
let looked = 0;

class Stopped extends Error {}

scope.onmessage = ({ data: message }) => {
  if ("stop" in message) {
    stopped.add(message.stop);
    return;
  }
  before = before.then(() => answer(message));
};

async function answer(ask: Ask): Promise<void> {
  const { id } = ask;
  const send = (part: Answer, transfer: Transferable[] = []) => scope.postMessage(part, transfer);
  const progress = async (phase: Phase, done: number) => {
    if (performance.now() - looked > PAUSE) {
      send({ id, phase, done });
      await turn();
      looked = performance.now();
    }
    if (stopped.has(id)) throw new Stopped();
  };
  try {
    await turn();
    if (stopped.has(id)) throw new Stopped();
    const model = (identity: string) => kept(identity, ask, (done) => send({ id, phase: "model", done }));
    const preview = (image: Raster) => send({ id, preview: image }, [image.data.buffer]);
    const image = await decodeFile(ask.data, ask.options, model, { progress, preview });
    send({ id, image }, [image.data.buffer]);
  } catch (error) {
    const { name, message } = error instanceof Error ? error : new Error(String(error));
    send({ id, error: error instanceof Stopped ? { name: "AbortError", message: "stopped" } : { name, message } });
  }
  stopped.delete(id);
}

/** Lets messages that have arrived be handled. */
function turn(): Promise<void> {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(0);
  });
}

function kept(identity: string, ask: Ask, done: (part: number) => void): Promise<Loaded> {
  const known = models.get(identity);
  if (known) {
    models.delete(identity);
    models.set(identity, known); // the last one used is the last one to go
    return known;
  }
  const loading = loaded(identity, ask, done);
  models.set(identity, loading);
  loading.catch(() => models.delete(identity));
  const [oldest] = models.keys();
  if (models.size > KEPT && oldest) {
    models.get(oldest)?.then(({ pixels }) => pixels.release());
    models.delete(oldest);
  }
  return loading;
}

async function loaded(identity: string, ask: Ask, done: (part: number) => void): Promise<Loaded> {
  const files = await load(ask.models, identity, done);
  const gpu = ask.webgpu && (await hasGpu());
  runtime ??= onnxruntime(ask.runtime, gpu);
  runtime.catch(() => {
    runtime = undefined;
  });
  return build(await runtime, files, identity, gpu ? "webgpu" : "wasm");
}

async function hasGpu(): Promise<boolean> {
  const { gpu } = navigator as { gpu?: { requestAdapter(): Promise<unknown> } };
  return Boolean(await gpu?.requestAdapter().catch(() => null));
}

async function onnxruntime(folder: string, gpu: boolean): Promise<Runtime> {
  const file = gpu ? "ort.webgpu.min.mjs" : "ort.wasm.min.mjs";
  const ort = (await import(/* @vite-ignore */ new URL(file, folder).href)) as Runtime;
  ort.env.wasm.wasmPaths = folder;
  ort.env.wasm.numThreads = 1; // more need a page that is isolated from others
  ort.env.logLevel = "error";
  return ort;
}
