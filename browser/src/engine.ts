// SPDX-License-Identifier: Apache-2.0
// From bytes to pixels, wherever it runs: container, indices, networks, alpha.
import { displayed } from "./colours.js";
import { type Container, type Header, payload, read } from "./container.js";
import { imageError, modelError } from "./errors.js";
import { orientation } from "./exif.js";
import { check, decodeIndices, type IndexMaps, indexMaps, Priors } from "./indices.js";
import { inflated } from "./info.js";
import { Kernels } from "./kernels.js";
import type { LevelMaps } from "./maps.js";
import type { ModelFiles } from "./models.js";
import { alpha, lossless } from "./pictures.js";
import { PixelDecoder, type Pixels, type Runtime, type Window } from "./pixels.js";
import { swaps, turned, unturned } from "./turning.js";
import { readWeights } from "./weights.js";

/** A part of a picture, in pixels of it as it is given: turned, if it is. */
export interface Region {
  x: number;
  y: number;
  width: number;
  height: number;
}

export interface DecodeOptions {
  /** Finest level to decode, 0 is the coarsest: a small picture, for little. The whole picture by default. */
  level?: number;
  /** A part of the picture; not together with `level`. */
  region?: Region;
  /** Pixels that a picture may have; 2^26 by default. */
  maxPixels?: number;
  /** "from-image", the default: turned as EXIF says. "none": as it is stored, which Python's decoder gives. */
  imageOrientation?: "from-image" | "none";
  /**
   * "default": colours that a canvas has. The ImageData is in Display P3 where the picture has a profile of another
   * space than sRGB, and the browser knows that space. "none": the stored numbers, whatever the profile says.
   */
  colorSpaceConversion?: "default" | "none";
  /** Also give a small picture from the coarse levels, on the way. */
  preview?: boolean;
}

/** RGBA. */
export interface Raster {
  width: number;
  height: number;
  data: Uint8ClampedArray<ArrayBuffer>;
  colorSpace?: "srgb" | "display-p3";
}

export type Phase = "model" | "indices" | "pixels";

/** What happens on the way. */
export interface Listener {
  /** May throw, to stop. */
  progress(phase: Phase, done: number): void | Promise<void>;
  preview(image: Raster): void | Promise<void>;
}

/** A model, ready to decode. */
export interface Loaded {
  priors: Priors;
  pixels: PixelDecoder;
}

export const MAX_PIXELS = 2 ** 26;

/** A model from its files. */
export async function build(ort: Runtime, files: ModelFiles, identity: string, provider = "wasm"): Promise<Loaded> {
  const weights = readWeights(files.get("priors") ?? new Uint8Array());
  const graphs = weights.config.autoencoder.levels.map((_, i) => {
    const graph = files.get(`level${i}`);
    if (!graph) throw modelError(`the model ${identity} has no graph of level ${i}`);
    return graph;
  });
  const priors = new Priors(await Kernels.create(), weights, identity);
  return { priors, pixels: await PixelDecoder.create(ort, graphs, weights, provider) };
}

/** Decodes a file. model: gives the model of an identity; it is not asked for one where a file needs none. */
export async function decodeFile(
  data: Uint8Array,
  options: DecodeOptions,
  model: (identity: string) => Promise<Loaded>,
  listener: Listener,
): Promise<Raster> {
  const file = read(data);
  const way = options.imageOrientation === "none" ? 1 : orientation(await inflated(payload(file, "E")));
  const window = wanted(file.header, options, way);
  const icc = options.colorSpaceConversion === "none" ? undefined : await inflated(payload(file, "C"));
  const shown = (image: Raster) => displayed(turned(image, way), icc);
  return shown(await storedPixels(file, window, options, model, shown, listener));
}

/** A picture as it is stored. */
async function storedPixels(
  file: Container,
  window: Window,
  options: DecodeOptions,
  model: (identity: string) => Promise<Loaded>,
  shown: (image: Raster) => Promise<Raster>,
  listener: Listener,
): Promise<Raster> {
  const { header } = file;
  if (header.lossless) return withoutLoss(file, window);
  const { priors, pixels } = await model(header.model);
  check(priors, file);
  if (options.level !== undefined && options.level < priors.levels.length - 1) {
    return small(file, options.level, { priors, pixels }, listener);
  }
  const give = async (image: Raster) => listener.preview(await shown(image));
  const part = await inside(file, window, options, { priors, pixels }, { ...listener, preview: give });
  return raster(part, header, await alphaOf(file), window);
}

/** The index maps of a file, coarsest level first; none of a file that has its picture without loss. */
export async function readIndices(
  data: Uint8Array,
  model: (identity: string) => Promise<Loaded>,
  listener: Listener,
): Promise<IndexMaps[]> {
  const file = read(data);
  if (file.header.lossless) return [];
  const { priors } = await model(file.header.model);
  return indexMaps(await decodeIndices(priors, file, { pause: (done) => listener.progress("indices", done) }));
}

/** The region that is asked for, as stored. Throws ImageError if it is none of the picture's, or too large. */
function wanted(header: Header, { region, level, maxPixels }: DecodeOptions, way: number): Window {
  const { width, height, lossless: whole } = header;
  const [across, down] = swaps(way) ? [height, width] : [width, height];
  const { x, y, width: w, height: h } = region ?? { x: 0, y: 0, width: across, height: down };
  const good = [x, y, w, h].every(Number.isInteger) && x >= 0 && y >= 0 && w > 0 && h > 0;
  if (!good || x + w > across || y + h > down) {
    throw imageError(`the region is not inside the picture of ${across}x${down} pixels`);
  }
  if (region && level !== undefined) throw imageError("give a region or a level, not both");
  if (level !== undefined && !(Number.isInteger(level) && level >= 0)) throw imageError("a level is a number from 0");
  const limit = maxPixels ?? MAX_PIXELS;
  const pixels = whole || level !== undefined ? width * height : w * h;
  if (pixels > limit) throw imageError(`${across}x${down} pixels are over the limit of ${limit}`);
  const stored = unturned({ x, y, width: w, height: h }, way, width, height);
  return { left: stored.x, top: stored.y, right: stored.x + stored.width, bottom: stored.y + stored.height };
}

/** A picture without loss, or a part of it. */
async function withoutLoss(file: Container, window: Window): Promise<Raster> {
  const pixels = await lossless(payload(file, "L") as Uint8Array, file.header);
  const [width, height] = [window.right - window.left, window.bottom - window.top];
  const out = new Uint8ClampedArray(4 * width * height);
  for (let y = 0; y < height; y++) {
    const from = 4 * ((window.top + y) * file.header.width + window.left);
    out.set(pixels.subarray(from, from + 4 * width), 4 * y * width);
  }
  return { width, height, data: out };
}

async function small(file: Container, level: number, { priors, pixels }: Loaded, listener: Listener): Promise<Raster> {
  if (!pixels.previews.includes(level)) {
    throw imageError(
      `this model has no small pictures of level ${level}, but of ${pixels.previews.join(", ") || "none"}`,
    );
  }
  const pause = (done: number) => listener.progress("indices", done);
  const maps = await decodeIndices(priors, file, { levels: level + 1, pause });
  return preview(file, maps, level, pixels, await alphaOf(file));
}

async function preview(
  file: Container,
  maps: LevelMaps[],
  level: number,
  pixels: PixelDecoder,
  plane: Uint8Array | undefined,
): Promise<Raster> {
  const { width, height, rate } = file.header;
  const made = await pixels.preview(maps, level, width, height, rate);
  const scale = Math.round(width / made.width);
  const less = plane && reduced(plane, width, height, made, scale);
  return raster(made, file.header, less, { left: 0, top: 0, right: made.width, bottom: made.height }, made.width);
}

/** The pixels of a region, with a small picture of all of it on the way. */
async function inside(
  file: Container,
  window: Window,
  options: DecodeOptions,
  { priors, pixels }: Loaded,
  listener: Listener,
): Promise<Pixels> {
  const { header } = file;
  const levels = priors.levels.length;
  const level = pixels.previews.at(-1);
  let start: { maps: LevelMaps[]; levels: number } | undefined;
  if (options.preview && !options.region && level !== undefined) {
    const pause = (done: number) => listener.progress("indices", done * 0.2);
    start = { maps: await decodeIndices(priors, file, { levels: level + 1, pause }), levels: level + 1 };
    await listener.preview(await preview(file, start.maps, level, pixels, await alphaOf(file)));
  }
  const before = start ? 0.2 : 0;
  const pause = (done: number) => listener.progress("indices", before + done * (1 - before));
  const groups = options.region ? near(window, header, pixels.reachOfAll()) : undefined;
  const maps = await decodeIndices(priors, file, { levels, pause, ...(start && { start }), ...(groups && { groups }) });
  return pixels.make(maps, window, header.rate, (done) => listener.progress("pixels", done));
}

/** Whether a group of tiles matters to a region. */
function near(window: Window, { tileSize: t }: Header, reach: number) {
  return (tiles: [number, number][]) =>
    tiles.some(([row, column]) => {
      const across = column * t < window.right + reach && (column + 1) * t > window.left - reach;
      return across && row * t < window.bottom + reach && (row + 1) * t > window.top - reach;
    });
}

async function alphaOf(file: Container): Promise<Uint8Array | undefined> {
  const chunk = payload(file, "A");
  return chunk && alpha(chunk, file.header);
}

/** The mean of squares of an alpha channel. */
function reduced(plane: Uint8Array, width: number, height: number, to: Pixels, scale: number): Uint8Array {
  return Uint8Array.from({ length: to.width * to.height }, (_, i) => {
    const [top, left] = [Math.floor(i / to.width) * scale, (i % to.width) * scale];
    let sum = 0;
    let count = 0;
    for (let y = top; y < Math.min(height, top + scale); y++) {
      for (let x = left; x < Math.min(width, left + scale); x++, count++) sum += plane[y * width + x] as number;
    }
    return Math.round(sum / Math.max(1, count));
  });
}

/** RGB and the alpha of a window of the picture, whose rows have `across` pixels. */
function raster(
  { width, height, data }: Pixels,
  { mode, width: whole }: Header,
  plane: Uint8Array | undefined,
  window: Window,
  across = whole,
): Raster {
  const out = new Uint8ClampedArray(4 * width * height);
  const grey = mode.startsWith("L");
  for (let y = 0, from = 0, to = 0; y < height; y++) {
    for (let x = 0; x < width; x++, from += 3, to += 4) {
      out[to] = data[from] as number;
      out[to + 1] = data[grey ? from : from + 1] as number;
      out[to + 2] = data[grey ? from : from + 2] as number;
      out[to + 3] = plane ? (plane[(window.top + y) * across + window.left + x] as number) : 255;
    }
  }
  return { width, height, data: out };
}
