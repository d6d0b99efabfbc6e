// SPDX-License-Identifier: Apache-2.0
// The worker: one file after the other, models kept. Between two steps it listens whether it is to stop.
import { build, type DecodeOptions, decodeFile, type Loaded, type Phase, type Raster, readIndices } from "./engine.js";
import { Vq2Error } from "./errors.js";
import type { IndexMaps } from "./indices.js";
import { load } from "./models.js";
import type { Runtime } from "./pixels.js";

export interface Ask {
  id: number;
  data: Uint8Array;
  options: DecodeOptions;
  /** Index maps are wanted, not pixels. */
  indices?: boolean;
  /** Where the manifest and onnxruntime's files lie. */
  models: string;
  runtime: string;
  webgpu: boolean | "always";
}

/** What makes the pixels. */
export type Backend = "wasm" | "webgpu";

export type Message = Ask | { stop: number };

export type Answer =
  | { id: number; phase: Phase; done: number }
  | { id: number; preview: Raster }
  | { id: number; image: Raster; backend: Backend | undefined }
  | { id: number; indices: IndexMaps[] }
  | { id: number; error: { name: string; message: string } };

const scope = globalThis as unknown as {
  postMessage(message: Answer, transfer: Transferable[]): void;
  onmessage: ((event: MessageEvent<Message>) => void) | null;
};

const PAUSE = 30; // milliseconds of work between two looks at the messages
const KEPT = 2; // models at once
const models = new Map<string, Promise<Ready>>();
const stopped = new Set<number>();
let before: Promise<void> = Promise.resolve();
const runtimes = new Map<Backend, Promise<Runtime>>();
let gpuFailed = false;
let looked = 0;

type Ready = Loaded & { backend: Backend };

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
    let backend: Backend | undefined;
    const model = async (identity: string) => {
      const ready = await kept(identity, ask, (done) => send({ id, phase: "model", done }));
      backend = ready.backend;
      return ready;
    };
    const preview = (image: Raster) => send({ id, preview: image }, [image.data.buffer]);
    const listener = { progress, preview };
    if (ask.indices) {
      const indices = await readIndices(ask.data, model, listener);
      send(
        { id, indices },
        indices.map(({ data }) => data.buffer),
      );
    } else {
      const decode = () => decodeFile(ask.data, ask.options, model, listener);
      const image = await decode().catch((error) => {
        if (backend !== "webgpu" || error instanceof Vq2Error || error instanceof Stopped) throw error;
        gpuFailed = true; // a lost device, or too little memory: not the file's fault
        models.clear();
        return decode();
      });
      send({ id, image, backend }, [image.data.buffer]);
    }
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

function kept(identity: string, ask: Ask, done: (part: number) => void): Promise<Ready> {
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

async function loaded(identity: string, ask: Ask, done: (part: number) => void): Promise<Ready> {
  const files = await load(ask.models, identity, done);
  const ready = async (backend: Backend) => ({
    ...(await build(await onnxruntime(ask.runtime, backend), files, identity, backend)),
    backend,
  });
  if (!gpuFailed && ask.webgpu && (await hasGpu(ask.webgpu === "always"))) {
    try {
      return await ready("webgpu");
    } catch (error) {
      if (error instanceof Vq2Error) throw error;
      gpuFailed = true;
    }
  }
  return ready("wasm");
}

/** Adapters that are programs are slower than WASM. */
async function hasGpu(programs: boolean): Promise<boolean> {
  interface Adapter {
    info?: { isFallbackAdapter?: boolean };
    isFallbackAdapter?: boolean;
  }
  const { gpu } = navigator as { gpu?: { requestAdapter(): Promise<Adapter | null> } };
  const adapter = await gpu?.requestAdapter().catch(() => null);
  return Boolean(adapter) && (programs || !(adapter?.info?.isFallbackAdapter ?? adapter?.isFallbackAdapter));
}

function onnxruntime(folder: string, backend: Backend): Promise<Runtime> {
  const known = runtimes.get(backend);
  if (known) return known;
  const loading = imported(new URL(`ort.${backend}.min.mjs`, folder).href, folder);
  runtimes.set(backend, loading);
  loading.catch(() => runtimes.delete(backend));
  return loading;
}

async function imported(file: string, folder: string): Promise<Runtime> {
  const ort = (await import(/* @vite-ignore */ file)) as Runtime;
  ort.env.wasm.wasmPaths = folder;
  ort.env.wasm.numThreads = 1; // more need a page that is isolated from others
  ort.env.logLevel = "error";
  return ort;
}
