// SPDX-License-Identifier: Apache-2.0
// Models as tools/export_web.py writes them, kept in the browser's Cache once they were loaded.
import { modelError } from "./errors.js";
import { sha256 } from "./weights.js";

export interface ModelEntry {
  name: string;
  identity: string;
  files: { role: string; file: string; bytes: number; sha256: string }[];
}

/** By role, uncompressed. */
export type ModelFiles = Map<string, Uint8Array>;

const CACHE = "vq2-models";

/** What the manifest in a folder says. Throws ModelError if there is none. */
export async function manifest(folder: string): Promise<ModelEntry[]> {
  const url = new URL("manifest.json", folder);
  const answer = await fetch(url).catch(() => undefined);
  if (!answer?.ok) throw modelError(`there are no models at ${url}`);
  try {
    return ((await answer.json()) as { models: ModelEntry[] }).models;
  } catch {
    throw modelError(`the manifest at ${url} cannot be read`);
  }
}

/** The files of a model. done: called with the part that is loaded, 0 to 1. Throws ModelError, which says what lacks. */
export async function load(folder: string, identity: string, done: (part: number) => void): Promise<ModelFiles> {
  const models = await manifest(folder);
  const model = models.find((entry) => entry.identity === identity);
  if (!model) {
    const names = models.map((entry) => `${entry.name} (${entry.identity})`).join(", ");
    throw modelError(`the file needs the model ${identity}, which is not here; there are ${names || "none"}`);
  }
  const total = model.files.reduce((sum, { bytes }) => sum + bytes, 0);
  let loaded = 0;
  const files: ModelFiles = new Map();
  for (const { role, file, bytes, sha256: digest } of model.files) {
    const packed = await content(new URL(file, folder), digest, (part) => done((loaded + part) / total));
    loaded += bytes;
    files.set(role, await gunzipped(packed));
  }
  done(1);
  return files;
}

async function content(url: URL, digest: string, done: (bytes: number) => void): Promise<Uint8Array> {
  const cache = await globalThis.caches?.open(CACHE).catch(() => undefined);
  const kept = await cache?.match(url);
  if (kept) {
    const data = new Uint8Array(await kept.arrayBuffer());
    if ((await sha256(data)) === digest) return data;
    await cache?.delete(url);
  }
  const answer = await fetch(url).catch(() => undefined);
  if (!answer?.ok || !answer.body) throw modelError(`${url} cannot be loaded`);
  const parts: Uint8Array[] = [];
  let length = 0;
  for await (const part of chunks(answer.body)) {
    parts.push(part);
    length += part.length;
    done(length);
  }
  const data = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    data.set(part, at);
    at += part.length;
  }
  if ((await sha256(data)) !== digest) throw modelError(`${url} is damaged`);
  await cache?.put(url, new Response(data as BodyInit)).catch(() => undefined);
  return data;
}

async function* chunks(stream: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array> {
  const reader = stream.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    yield value;
  }
}

/** Servers may also send the content as `Content-Encoding: gzip`, so that it arrives unpacked. */
async function gunzipped(data: Uint8Array): Promise<Uint8Array> {
  if (data[0] !== 0x1f || data[1] !== 0x8b) return data;
  const stream = new Blob([data as BlobPart]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
