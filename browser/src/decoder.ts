// SPDX-License-Identifier: Apache-2.0
// The side of a page: asks the worker, and hears from it.
import type { DecodeOptions as EngineOptions, Phase, Raster } from "./engine.js";
import type { IndexMaps } from "./indices.js";
import type { Answer, Ask, Backend } from "./worker.js";

export interface IndexOptions {
  /** Stops the decoding; the promise is then rejected with its reason. */
  signal?: AbortSignal;
  /** Called with the phase and what of it is done, 0 to 1. */
  onProgress?: (phase: Phase, done: number) => void;
}

export interface DecodeOptions extends Omit<EngineOptions, "preview">, IndexOptions {
  /** Called once with a small picture from the coarse levels, where the model has them. */
  onPreview?: (image: ImageData) => void;
}

export interface DecoderOptions {
  /** Folder of the models and their manifest; `models/` beside this script by default. */
  models?: string | URL;
  /** Folder of onnxruntime-web's files; `ort/` beside this script by default. */
  runtime?: string | URL;
  /** Address of worker.js, which has to be of the page's origin; beside this script by default. */
  worker?: string | URL;
  /**
   * Make the pixels with WebGPU: true (the default) where there is a graphics processor, "always" also where WebGPU is
   * a program on the CPU, which is slower than WASM.
   */
  webgpu?: boolean | "always";
}

type Result = Extract<Answer, { image: Raster } | { indices: IndexMaps[] }>;

interface Waiting {
  options: DecodeOptions;
  resolve(answer: Result): void;
  reject(error: unknown): void;
}

/** A worker that decodes one file after the other and keeps its models. */
export class Decoder {
  /** What made the pixels of the last picture; undefined before the first, and after one that needs no model. */
  backend: Backend | undefined;
  private readonly worker: Worker;
  private readonly waiting = new Map<number, Waiting>();
  private readonly settings: Pick<Ask, "models" | "runtime" | "webgpu">;
  private last = 0;

  constructor({ models, runtime, worker, webgpu = true }: DecoderOptions = {}) {
    if (typeof Worker === "undefined") throw new Error("vq2 decodes in browsers: there is no Worker here");
    this.settings = { models: folder(models, "models/"), runtime: folder(runtime, "ort/"), webgpu };
    // Written out as bundlers look for it.
    this.worker = worker
      ? new Worker(new URL(worker, baseOfPage()), { type: "module" })
      : new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    this.worker.onmessage = ({ data }: MessageEvent<Answer>) => this.take(data);
    this.worker.onerror = (event) => this.fail(new Error(event.message || "the worker cannot be started"));
  }

  /** Decodes a file, or a part of it. Rejects with an error whose name is FormatError, ModelError or ImageError. */
  async decode(bytes: Uint8Array | ArrayBuffer, options: DecodeOptions = {}): Promise<ImageData> {
    const answer = await this.ask(bytes, options, false);
    if (!("image" in answer)) throw new TypeError("the worker gave no picture");
    this.backend = answer.backend;
    return imageData(answer.image);
  }

  /** Reads the index maps of a file, coarsest level first; none of a file that has its picture without loss. */
  async indices(bytes: Uint8Array | ArrayBuffer, options: IndexOptions = {}): Promise<IndexMaps[]> {
    const answer = await this.ask(bytes, options, true);
    if (!("indices" in answer)) throw new TypeError("the worker gave no indices");
    return answer.indices;
  }

  private ask(bytes: Uint8Array | ArrayBuffer, options: DecodeOptions, indices: boolean): Promise<Result> {
    const { signal, onPreview, onProgress: _, ...plain } = options;
    if (signal?.aborted) return Promise.reject(signal.reason);
    const id = ++this.last;
    return new Promise((resolve, reject) => {
      const stop = () => {
        this.waiting.delete(id);
        this.worker.postMessage({ stop: id });
        reject(signal?.reason);
      };
      signal?.addEventListener("abort", stop, { once: true });
      const end = () => signal?.removeEventListener("abort", stop);
      this.waiting.set(id, {
        options,
        resolve: (answer) => {
          end();
          resolve(answer);
        },
        reject: (error) => {
          end();
          reject(error);
        },
      });
      const data = new Uint8Array(bytes).slice(); // the caller's bytes stay the caller's
      const asked = { ...plain, preview: Boolean(onPreview) };
      this.worker.postMessage({ id, data, options: asked, indices, ...this.settings } satisfies Ask, [data.buffer]);
    });
  }

  /** Ends the worker; whatever is still waiting is rejected. */
  close(): void {
    this.worker.terminate();
    this.fail(new DOMException("the decoder was closed", "AbortError"));
  }

  private take(answer: Answer): void {
    const waiting = this.waiting.get(answer.id);
    if (!waiting) return;
    if ("phase" in answer) waiting.options.onProgress?.(answer.phase, answer.done);
    else if ("preview" in answer) waiting.options.onPreview?.(imageData(answer.preview));
    else {
      this.waiting.delete(answer.id);
      if ("error" in answer)
        waiting.reject(Object.assign(new Error(answer.error.message), { name: answer.error.name }));
      else waiting.resolve(answer);
    }
  }

  private fail(error: unknown): void {
    for (const { reject } of this.waiting.values()) reject(error);
    this.waiting.clear();
  }
}

let shared: Decoder | undefined;

/** The decoder of the whole page, with the default folders. */
export function sharedDecoder(): Decoder {
  shared ??= new Decoder();
  return shared;
}

/** Decodes with one decoder for the whole page, with the default folders. */
export function decode(bytes: Uint8Array | ArrayBuffer, options?: DecodeOptions): Promise<ImageData> {
  return sharedDecoder().decode(bytes, options);
}

/** Reads index maps with that decoder. */
export function indices(bytes: Uint8Array | ArrayBuffer, options?: IndexOptions): Promise<IndexMaps[]> {
  return sharedDecoder().indices(bytes, options);
}

function imageData({ data, width, height, colorSpace }: Raster): ImageData {
  return colorSpace ? new ImageData(data, width, height, { colorSpace }) : new ImageData(data, width, height);
}

/** As a page gives it; by default a folder beside this script. */
function folder(path: string | URL | undefined, beside: string): string {
  const url = path === undefined ? new URL(beside, import.meta.url) : new URL(path, baseOfPage());
  return url.href.endsWith("/") ? url.href : `${url.href}/`;
}

function baseOfPage(): string {
  return globalThis.document?.baseURI ?? globalThis.location.href;
}
