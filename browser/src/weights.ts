// SPDX-License-Identifier: Apache-2.0
// Safetensors: the length of a JSON header, the header, then the bytes of the tensors. docs/prior.md has the names.
import { modelError } from "./errors.js";

export interface Tensor {
  dtype: string;
  shape: number[];
  data: Uint8Array;
}

export interface LevelConfig {
  stride: number;
  codebooks: number;
  codes: number;
  products: number;
  groups: number;
  group_codes: number;
  stop: boolean;
  dim: number;
}

export interface PriorConfig {
  channels: number;
  layers: number;
  heads: number;
  attention_every: number;
  cond_blocks: number;
  cond_above: boolean;
  out_channels: number;
  out_blocks: number;
  order: string;
  rates: number;
}

export interface ModelConfig {
  tile_size: number;
  autoencoder: {
    levels: LevelConfig[];
    widths: number[];
    decoder_blocks: number[];
    patch: number;
    gains?: number;
    overlap?: boolean;
  };
  priors: PriorConfig[];
}

export interface Weights {
  config: ModelConfig;
  tensors: Map<string, Tensor>;
}

const LEVEL = { codebooks: 1, products: 0, groups: 1, group_codes: 64, stop: false };
const PRIOR = { cond_above: false, out_channels: 0, order: "waves", rates: 0, cond_blocks: 0, out_blocks: 0 };

/** Reads a weights file, or an exported part of one. */
export function readWeights(file: Uint8Array): Weights {
  const data = new Uint8Array(file.buffer, file.byteOffset, file.length); // a Buffer's `slice` would be a view
  try {
    const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
    const start = 8 + Number(view.getBigUint64(0, true));
    const { __metadata__: meta, ...entries } = JSON.parse(new TextDecoder().decode(data.subarray(8, start)));
    const config = JSON.parse(meta.vqcodec).model as ModelConfig;
    config.autoencoder.levels = config.autoencoder.levels.map((level) => ({ ...LEVEL, ...level }));
    config.priors = config.priors.map((prior) => ({ ...PRIOR, ...prior }));
    const tensors = new Map<string, Tensor>();
    for (const [name, entry] of Object.entries<{ dtype: string; shape: number[]; data_offsets: [number, number] }>(
      entries,
    )) {
      const [first, last] = entry.data_offsets;
      if (start + last > data.length) throw new RangeError("a tensor is missing");
      tensors.set(name, { dtype: entry.dtype, shape: entry.shape, data: data.subarray(start + first, start + last) });
    }
    return { config, tensors };
  } catch (error) {
    throw modelError(`the weights cannot be read: ${(error as Error).message}`);
  }
}

/** The first 4 bytes of the SHA-256 of some data, as hexadecimal digits; and all 32. */
export async function sha256(data: Uint8Array): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", data as BufferSource));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
