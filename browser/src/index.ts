// SPDX-License-Identifier: Apache-2.0
// Decodes `.vq2` files in a Web Worker.
import type { DecodeOptions as EngineOptions, Phase, Raster } from "./engine.js";
import type { Answer, Ask } from "./worker.js";

export type { Phase, Region } from "./engine.js";
export type { ErrorName } from "./errors.js";
export { type Info, info } from "./info.js";

export interface DecodeOptions extends Omit<EngineOptions, "preview"> {
  /** Stops the decoding; the promise is then rejected with its reason. */
  signal?: AbortSignal;
  /** Called with the phase and what of it is done, 0 to 1. */
  onProgress?: (phase: Phase, done: number) => void;
  /** Called once with a small picture from the coarse levels, where the model has them. */
  onPreview?: (image: ImageData) => void;
}

export interface DecoderOptions {
  /** Folder of the models and their manifest; `models/` beside this script by default. */
  models?: string | URL;
  /** Folder of onnxruntime-web's files; `ort/` beside this script by default. */
  runtime?: string | URL;
  /** Make the pixels with WebGPU where there is one; true by default. */
  webgpu?: boolean;
}

interface Waiting {
  options: DecodeOptions;
  resolve(image: ImageData): void;
  reject(error: unknown): void;
}

/** A worker that decodes one file after the other and keeps its models. */
export class Decoder {
  private readonly worker: Worker;
  private readonly waiting = new Map<number, Waiting>();
  private readonly settings: Pick<Ask, "models" | "runtime" | "webgpu">;
  private last = 0;

  constructor({ models = "models/", runtime = "ort/", webgpu = true }: DecoderOptions = {}) {
    this.settings = { models: folder(models), runtime: folder(runtime), webgpu };
    this.worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    this.worker.onmessage = ({ data }: MessageEvent<Answer>) => this.take(data);
    this.worker.onerror = (event) => this.fail(new Error(event.message || "the worker cannot be started"));
  }

  /** Decodes a file, or a part of it. Rejects with an error whose name is FormatError, ModelError or ImageError. */
  decode(bytes: Uint8Array | ArrayBuffer, options: DecodeOptions = {}): Promise<ImageData> {
    const { signal, onPreview, level, region, maxPixels } = options;
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
        resolve: (image) => {
          end();
          resolve(image);
        },
        reject: (error) => {
          end();
          reject(error);
        },
      });
      const data = new Uint8Array(bytes).slice(); // the caller's bytes stay the caller's
      const asked = { level, region, maxPixels, preview: Boolean(onPreview) };
      this.worker.postMessage({ id, data, options: asked, ...this.settings } satisfies Ask, [data.buffer]);
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
      if ("image" in answer) waiting.resolve(imageData(answer.image));
      else waiting.reject(Object.assign(new Error(answer.error.message), { name: answer.error.name }));
    }
  }

  private fail(error: unknown): void {
    for (const { reject } of this.waiting.values()) reject(error);
    this.waiting.clear();
  }
}

let shared: Decoder | undefined;

/** Decodes with one decoder for the whole page, with the default folders. */
export function decode(bytes: Uint8Array | ArrayBuffer, options?: DecodeOptions): Promise<ImageData> {
  shared ??= new Decoder();
  return shared.decode(bytes, options);
}

/** Replaces every `<img src="x.vq2">` by its picture, those that come later too. Returns a function that stops it. */
export function upgradeImages(root: ParentNode & Node = document, decoder?: Decoder): () => void {
  const seen = new WeakMap<HTMLImageElement, string>();
  const upgrade = async (image: HTMLImageElement) => {
    const source = image.getAttribute("src") ?? "";
    if (!/\.vq2([?#]|$)/.test(source) || seen.get(image) === source) return;
    seen.set(image, source);
    const show = async (picture: ImageData) => {
      const url = URL.createObjectURL(await png(picture));
      if (seen.get(image) !== source) return;
      image.addEventListener("load", () => URL.revokeObjectURL(url), { once: true });
      image.src = url;
    };
    try {
      const answer = await fetch(new URL(source, document.baseURI));
      if (!answer.ok) throw new Error(`${source}: ${answer.status}`);
      const bytes = await answer.arrayBuffer();
      await show(await (decoder ? decoder.decode(bytes) : decode(bytes)));
    } catch (error) {
      image.dispatchEvent(new CustomEvent("vq2error", { detail: error, bubbles: true }));
    }
  };
  const all = () => {
    for (const image of root.querySelectorAll("img")) void upgrade(image);
  };
  const observer = new MutationObserver(all);
  observer.observe(root, { subtree: true, childList: true, attributes: true, attributeFilter: ["src"] });
  all();
  return () => observer.disconnect();
}

/** A PNG file of a picture. */
export async function png(image: ImageData): Promise<Blob> {
  const canvas = new OffscreenCanvas(image.width, image.height);
  canvas.getContext("2d")?.putImageData(image, 0, 0);
  return canvas.convertToBlob({ type: "image/png" });
}

function imageData({ data, width, height }: Raster): ImageData {
  return new ImageData(data, width, height);
}

function folder(path: string | URL): string {
  const url = new URL(path, import.meta.url).href;
  return url.endsWith("/") ? url : `${url}/`;
}
