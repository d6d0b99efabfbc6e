// SPDX-License-Identifier: Apache-2.0
// Index maps to pixels: sums of codewords here, the networks in onnxruntime. Large pictures are made in windows.
import type * as Ort from "onnxruntime-web";
import { modelError } from "./errors.js";
import type { LevelMaps } from "./maps.js";
import type { ModelConfig, Weights } from "./weights.js";

export type Runtime = typeof Ort;

/** Pixels left <= x < right, top <= y < bottom. */
export interface Window {
  left: number;
  top: number;
  right: number;
  bottom: number;
}

/** Channels one after the other, [channels, height, width]; window: what of the padded picture they cover. */
interface Planes {
  data: Float32Array;
  channels: number;
  width: number;
  height: number;
  window: Window;
}

/** RGB interleaved. */
export interface Pixels {
  width: number;
  height: number;
  data: Uint8ClampedArray;
}

const SIDE = 1024; // of the windows of a large picture, in pixels

export class PixelDecoder {
  private readonly config: ModelConfig;
  private readonly codebooks: { residual: Float32Array; product: Float32Array | undefined }[];
  private readonly gains: { finest: Float32Array; head: Float32Array } | undefined;

  private constructor(
    private readonly ort: Runtime,
    private readonly sessions: Ort.InferenceSession[],
    private readonly weights: Weights,
  ) {
    this.config = weights.config;
    this.codebooks = this.config.autoencoder.levels.map((level, i) => ({
      residual: this.floats(`quantizers.${i}.codebooks`),
      product: level.products ? this.floats(`quantizers.${i}.product_codebooks`) : undefined,
    }));
    this.gains = this.config.autoencoder.gains
      ? { finest: this.floats("gains.finest.logs"), head: this.floats("gains.head.logs") }
      : undefined;
  }

  /** graphs: the ONNX files of all levels, coarsest first. */
  static async create(ort: Runtime, graphs: Uint8Array[], weights: Weights, provider = "wasm"): Promise<PixelDecoder> {
    const sessions: Ort.InferenceSession[] = [];
    for (const graph of graphs) {
      sessions.push(await ort.InferenceSession.create(graph, { executionProviders: [provider] }));
    }
    return new PixelDecoder(ort, sessions, weights);
  }

  private floats(name: string): Float32Array {
    const tensor = this.weights.tensors.get(name);
    if (tensor?.dtype !== "F16") throw modelError(`the weights have no ${name}`);
    return halves(tensor.data);
  }

  /** The sums of codewords of a level in a window, which lies on multiples of the level's stride. */
  private codewords(i: number, { data, width, height }: LevelMaps, window: Window): Planes {
    const level = this.level(i);
    const { residual, product } = this.codebooks[i] as { residual: Float32Array; product: Float32Array | undefined };
    const [left, top] = [window.left / level.stride, window.top / level.stride];
    const [w, h] = [window.right / level.stride - left, window.bottom / level.stride - top];
    const size = w * h;
    const out = new Float32Array(level.dim * size);
    const add = (map: number, table: Float32Array, first: number, dim: number, channel: number) => {
      for (let y = 0; y < h; y++) {
        const from = (map * height + top + y) * width + left;
        for (let x = 0; x < w; x++) {
          const index = data[from + x] as number;
          const row = first + index * dim;
          let to = channel * size + y * w + x;
          for (let d = 0; d < dim; d++, to += size) out[to] = (out[to] as number) + (table[row + d] as number);
        }
      }
    };
    for (let s = 0; s < level.codebooks; s++) add(s, residual, s * level.codes * level.dim, level.dim, 0);
    const part = level.dim / level.groups;
    for (let g = 0; product && g < level.products * level.groups; g++) {
      add(level.codebooks + g, product, g * level.group_codes * part, part, (g % level.groups) * part);
    }
    return { data: out, channels: level.dim, width: w, height: h, window };
  }

  private level(i: number) {
    return this.config.autoencoder.levels[i] as ModelConfig["autoencoder"]["levels"][number];
  }

  /** Runs the graph of a level. */
  private async run(i: number, codewords: Planes, state: Planes | undefined, rate: number): Promise<Planes[]> {
    const tensor = ({ data, channels, width, height }: Planes) =>
      new this.ort.Tensor("float32", data, [1, channels, height, width]);
    const feeds: Record<string, Ort.Tensor> = { codewords: tensor(codewords) };
    if (state) feeds.state = tensor(state);
    const last = i + 1 === this.sessions.length;
    if (last && this.gains) {
      for (const [name, logs] of Object.entries(this.gains)) {
        const gains = gainsAt(logs, this.config.autoencoder.gains as number, rate);
        feeds[name] = new this.ort.Tensor("float32", gains, [1, gains.length, 1, 1]);
      }
    }
    const results = await (this.sessions[i] as Ort.InferenceSession).run(feeds);
    return (last ? ["pixels"] : ["features", "next"]).map((name) => {
      const result = results[name] as Ort.Tensor;
      const [, channels, height, width] = result.dims as [number, number, number, number];
      return { data: result.data as Float32Array, channels, height, width, window: codewords.window };
    });
  }

  /** The coarse levels in their windows: the state that the last level takes, and the features of the level before. */
  private async coarse(maps: LevelMaps[], windows: Window[], levels: number, rate: number) {
    let state: Planes | undefined;
    let features: Planes | undefined;
    for (let i = 0; i < levels; i++) {
      const window = windows[i] as Window;
      const codewords = this.codewords(i, maps[i] as LevelMaps, window);
      [features, state] = await this.run(i, codewords, state && cropped(state, window), rate);
    }
    return { state, features };
  }

  /** The pixels of a region. done: called after every window with what is done, 0 to 1; may throw, to stop. */
  async make(
    maps: LevelMaps[],
    region: Window,
    rate: number,
    done: (part: number) => void | Promise<void> = () => undefined,
  ): Promise<Pixels> {
    const [width, height] = [region.right - region.left, region.bottom - region.top];
    const out: Pixels = { width, height, data: new Uint8ClampedArray(3 * width * height) };
    const parts: Window[] = [];
    for (let top = region.top; top < region.bottom; top += SIDE) {
      for (let left = region.left; left < region.right; left += SIDE) {
        parts.push({
          left,
          top,
          right: Math.min(region.right, left + SIDE),
          bottom: Math.min(region.bottom, top + SIDE),
        });
      }
    }
    const last = maps.length - 1;
    let finished = 0;
    for (const part of parts) {
      const windows = this.needed(maps, part);
      const { state } = await this.coarse(maps, windows, last, rate);
      await done((finished + 0.2) / parts.length);
      const window = windows[last] as Window;
      const codewords = this.codewords(last, maps[last] as LevelMaps, window);
      const [pixels] = await this.run(last, codewords, state && cropped(state, window), rate);
      copy(pixels as Planes, part, region, out);
      await done(++finished / parts.length);
    }
    return out;
  }

  /** The windows of all levels that the pixels of a region need. */
  needed(maps: LevelMaps[], region: Window): Window[] {
    const { maps: first, width, height } = maps[0] as LevelMaps;
    const [right, bottom] = [width * first.level.stride, height * first.level.stride];
    const windows: Window[] = [];
    let window = region;
    for (let i = maps.length - 1; i >= 0; i--) {
      const { stride } = this.level(i);
      const reach = this.reach(i);
      // A window starts where the next coarser level has a position, too.
      const unit = i ? this.level(i - 1).stride : stride;
      window = {
        left: Math.max(0, Math.floor((window.left - reach) / unit) * unit),
        top: Math.max(0, Math.floor((window.top - reach) / unit) * unit),
        right: Math.min(right, Math.ceil((window.right + reach) / unit) * unit),
        bottom: Math.min(bottom, Math.ceil((window.bottom + reach) / unit) * unit),
      };
      windows.unshift(window);
    }
    return windows;
  }

  /** Pixels beyond which nothing of a level matters to the next finer one, or to the picture. */
  private reach(i: number): number {
    const { levels, decoder_blocks, patch, overlap = true } = this.config.autoencoder;
    const { stride } = this.level(i);
    const last = i + 1 === levels.length;
    const end = last ? patch : this.level(i + 1).stride;
    let total = stride;
    decoder_blocks.forEach((blocks, position) => {
      const s = patch * 2 ** position;
      if ((end < s && s <= stride) || (s === end && last)) total += s * (blocks + (overlap && s > end ? 1 : 0));
    });
    return total + (last ? patch : 0);
  }

  /** Pixels beyond which no index matters to a pixel, with the roundings to whole positions. */
  reachOfAll(): number {
    return this.config.autoencoder.levels.reduce((sum, { stride }, i) => sum + this.reach(i) + 2 * stride, 0);
  }

  /** Levels that have a linear map for previews, coarsest first. */
  get previews(): number[] {
    return this.config.autoencoder.levels.map((_, i) => i).filter((i) => this.weights.tensors.has(`readout.${i}`));
  }

  /** A small picture from the levels up to one that has a preview. */
  async preview(maps: LevelMaps[], level: number, width: number, height: number, rate: number): Promise<Pixels> {
    const { maps: first, width: across, height: down } = maps[0] as LevelMaps;
    const whole = { left: 0, top: 0, right: across * first.level.stride, bottom: down * first.level.stride };
    const windows = this.config.autoencoder.levels.map(() => whole);
    const { features } = await this.coarse(maps, windows, level + 1, rate);
    const { data, channels, width: w, height: h } = features as Planes;
    const map = this.floats(`readout.${level}`);
    const outputs = map.length / (channels + 1);
    const side = Math.sqrt(outputs / 3);
    const scale = this.level(level).stride / side;
    const out: Pixels = {
      width: Math.ceil(width / scale),
      height: Math.ceil(height / scale),
      data: new Uint8ClampedArray(),
    };
    out.data = new Uint8ClampedArray(3 * out.width * out.height);
    const sums = new Float32Array(w * h);
    for (let o = 0; o < outputs; o++) {
      sums.fill(map[o * (channels + 1) + channels] as number);
      for (let c = 0; c < channels; c++) {
        const weight = map[o * (channels + 1) + c] as number;
        for (let p = 0; p < sums.length; p++) {
          sums[p] = (sums[p] as number) + weight * (data[c * sums.length + p] as number);
        }
      }
      const channel = Math.floor(o / side ** 2);
      const [dy, dx] = [Math.floor((o % side ** 2) / side), o % side];
      for (let y = 0; y < h && y * side + dy < out.height; y++) {
        for (let x = 0; x < w && x * side + dx < out.width; x++) {
          const at = 3 * ((y * side + dy) * out.width + x * side + dx) + channel;
          out.data[at] = 255 * (sums[y * w + x] as number);
        }
      }
    }
    return out;
  }

  /** Gives back what the sessions hold. */
  async release(): Promise<void> {
    for (const session of this.sessions) await session.release();
  }
}

/** A part of planes that cover more of the picture. */
function cropped(planes: Planes, window: Window): Planes {
  const { data, channels, width, height, window: all } = planes;
  const stride = (all.right - all.left) / width;
  const [left, top] = [(window.left - all.left) / stride, (window.top - all.top) / stride];
  const [w, h] = [(window.right - window.left) / stride, (window.bottom - window.top) / stride];
  if (w === width && h === height) return planes;
  const out = new Float32Array(channels * w * h);
  for (let row = 0; row < channels * h; row++) {
    const from = (Math.floor(row / h) * height + top + (row % h)) * width + left;
    out.set(data.subarray(from, from + w), row * w);
  }
  return { data: out, channels, width: w, height: h, window };
}

/** Planes 0..255 to interleaved pixels, rounded and clamped by the array. */
function copy({ data, width, height, window }: Planes, part: Window, region: Window, out: Pixels): void {
  const size = width * height;
  for (let y = part.top; y < part.bottom; y++) {
    let from = (y - window.top) * width + part.left - window.left;
    let to = 3 * ((y - region.top) * out.width + part.left - region.left);
    for (let x = part.left; x < part.right; x++, from++, to += 3) {
      out.data[to] = data[from] as number;
      out.data[to + 1] = data[size + from] as number;
      out.data[to + 2] = data[2 * size + from] as number;
    }
  }
}

/** Gains at a rate of 0 to 255: exponentials, interpolated between `points` vectors of logarithms. */
function gainsAt(logs: Float32Array, points: number, rate: number): Float32Array {
  const channels = logs.length / points;
  const position = (rate / 255) * (points - 1);
  const below = Math.min(Math.floor(position), Math.max(0, points - 2));
  const weight = position - below;
  const above = Math.min(below + 1, points - 1);
  return Float32Array.from({ length: channels }, (_, c) =>
    Math.exp((logs[below * channels + c] as number) * (1 - weight) + (logs[above * channels + c] as number) * weight),
  );
}

/** float16, little-endian, to float32. */
export function halves(data: Uint8Array): Float32Array {
  const bits = new Uint16Array(data.slice().buffer);
  return Float32Array.from(bits, (half) => {
    const exponent = (half >> 10) & 31;
    const fraction = half & 1023;
    const sign = half & 0x8000 ? -1 : 1;
    if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
    return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -24 * fraction);
  });
}
