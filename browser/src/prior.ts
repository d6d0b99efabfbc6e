// SPDX-License-Identifier: Apache-2.0
// The weights of the prior of a level, packed for the kernels: docs/prior.md, "The weights file".
import { modelError } from "./errors.js";
import type { Kernels } from "./kernels.js";
import { type Step, steps } from "./orders.js";
import type { LevelConfig, ModelConfig, PriorConfig, Weights } from "./weights.js";

/** The index maps of a level. */
export class Maps {
  /** Numbers of the maps of every stage. */
  readonly stages: number[][];
  readonly sizes: number[];
  /** Of every map, the row of its code 0 in tables; `rows` of all of them. */
  readonly first: number[] = [];
  readonly rows: number;

  constructor(readonly level: LevelConfig) {
    const { codebooks, codes, products, groups } = level;
    this.stages = Array.from({ length: codebooks }, (_, m) => [m]);
    for (let p = 0; p < products; p++) {
      this.stages.push(Array.from({ length: groups }, (_, g) => codebooks + p * groups + g));
    }
    this.sizes = [...Array(codebooks).fill(codes), ...Array(products * groups).fill(level.group_codes)];
    let row = 0;
    for (const size of this.sizes) {
      this.first.push(row);
      row += size;
    }
    this.rows = row;
  }

  get number(): number {
    return this.sizes.length;
  }
}

/** A matrix and its bias. `segments` points at the list of its one part; `wide` columns, of which `columns` count. */
export interface Linear {
  segments: number;
  inner: number;
  wide: number;
  columns: number;
  bias: number;
}

export class Prior {
  readonly maps: Maps;
  readonly coarser: Maps[];
  readonly above: boolean;
  /** Positions of the level along an axis of a position of its conditioning stack, whose stride is `working`. */
  readonly ratio: number;
  readonly working: number;
  readonly side: number;
  readonly steps: Step[];
  readonly config: PriorConfig;
  readonly base: Int32Array;
  readonly rate: Int32Array | undefined;
  readonly condCoarse: number[];
  readonly condBlocks: [Linear, Linear][];
  readonly expand: Linear | undefined;
  readonly step: number;
  readonly embed: number;
  readonly layers: { conv: number[][]; cond: number; bias: number; project: Linear }[];
  readonly attention: Map<number, { query: Linear; keyValue: Linear; out: Linear }> = new Map();
  readonly enter: Linear | undefined;
  readonly stage: number;
  readonly told: number;
  readonly outBlocks: [Linear, Linear][];
  readonly heads: Linear[];
  readonly table: number;
  readonly exponential: number;
  /** Bits that a position takes at least. */
  readonly leastBits: number;
  private readonly kernels: Kernels;
  private readonly weights: Weights;
  private readonly prefix: string;

  constructor(kernels: Kernels, weights: Weights, number: number) {
    this.kernels = kernels;
    this.weights = weights;
    this.prefix = `prior.${number}.`;
    const model: ModelConfig = weights.config;
    const levels = model.autoencoder.levels;
    const level = levels[number] as LevelConfig;
    const config = model.priors[number] as PriorConfig;
    this.config = config;
    this.maps = new Maps(level);
    this.coarser = levels.slice(0, number).map((other) => new Maps(other));
    this.above = config.cond_above && number > 0;
    this.working = this.above ? (levels[number - 1] as LevelConfig).stride : level.stride;
    this.ratio = this.working / level.stride;
    this.side = model.tile_size / level.stride;
    this.steps = steps(config.order, this.side);
    const c = config.channels;
    const o = config.out_channels || c;
    if (c % 8 || o % 8) throw modelError("numbers of channels that are no multiples of 8 are not supported here");
    this.base = this.ints("base");
    this.rate = config.rates ? this.ints("rate") : undefined;
    this.condCoarse = this.coarser.map((_, j) => this.tensor(`cond_coarse.${j}`));
    this.condBlocks = range(config.cond_blocks).map((b) => this.block(`cond.${b}`, 9 * c, c));
    this.expand = this.above ? this.linear("expand", c, this.ratio ** 2 * c) : undefined;
    this.step = config.order === "seven" ? this.tensor("step") : 0;
    this.embed = this.tensor("embed");
    const reaches = config.order === "seven" ? [0, 1] : [0];
    this.layers = range(config.layers).map((i) => {
      const conv = reaches.map((q) => this.packed(`layer.${i}.conv.${q}.weight`, c, 2 * c));
      const cond = this.packed(`layer.${i}.cond.weight`, c, 2 * c)[0] as number;
      const bias = kernels.int32(this.ints(`layer.${i}.bias`));
      return { conv, cond, bias, project: this.linear(`layer.${i}.project`, c, c) };
    });
    for (let i = 0; i < config.layers; i++) {
      if (!config.attention_every || (i + 1) % config.attention_every) continue;
      const name = `attention.${i}`;
      this.attention.set(i, {
        query: this.linear(`${name}.query`, c, c),
        keyValue: this.linear(`${name}.key_value`, 2 * c, 2 * c),
        out: this.linear(`${name}.out`, c, c),
      });
    }
    this.enter = config.out_channels ? this.linear("enter", c, o) : undefined;
    const several = this.maps.stages.length > 1;
    this.stage = several ? this.tensor("stage") : 0;
    this.told = several ? this.tensor("told") : 0;
    this.outBlocks = range(config.out_blocks).map((b) => this.block(`out.${b}`, o, o));
    this.heads = this.maps.stages.map((members, s) => {
      return this.linear(`head.${s}`, o, members.length * (this.maps.sizes[members[0] as number] as number));
    });
    const table = this.ints("table");
    this.table = kernels.int32(table);
    this.exponential = kernels.int32(this.ints("exp_table"));
    this.leastBits = leastBits(this.maps, table);
  }

  /** Width of the output stack. */
  get outputs(): number {
    return this.config.out_channels || this.config.channels;
  }

  private bytes(name: string): { dtype: string; data: Uint8Array } {
    const tensor = this.weights.tensors.get(this.prefix + name);
    if (!tensor) throw modelError(`the weights have no ${this.prefix}${name}`);
    return tensor;
  }

  private ints(name: string): Int32Array {
    const { dtype, data } = this.bytes(name);
    const copy = data.slice().buffer;
    return dtype === "I8" ? Int32Array.from(new Int8Array(copy)) : new Int32Array(copy);
  }

  /** A table of int8 as it is. */
  private tensor(name: string): number {
    const { dtype, data } = this.bytes(name);
    if (dtype !== "I8") throw modelError(`${name} should be int8`);
    return this.kernels.bytes(data);
  }

  /** A matrix in segments of `inner` rows. */
  private packed(name: string, inner: number, columns: number): number[] {
    const { data } = this.bytes(name);
    const count = data.length / (inner * columns);
    if (!Number.isInteger(count) || count < 1) throw modelError(`${name} has another size than its model says`);
    const { run } = this.kernels;
    const wide = Math.ceil(columns / 8) * 8;
    const size = 2 * inner * wide;
    const target = this.kernels.take(size * count);
    const mark = this.kernels.mark;
    const source = this.kernels.bytes(data);
    const segments = range(count).map((s) => target + s * size);
    segments.forEach((to, s) => {
      run.pack(source + s * inner * columns, inner, columns, wide, to);
    });
    this.kernels.release(mark);
    return segments;
  }

  private linear(name: string, inner: number, columns: number): Linear {
    const segments = this.packed(`${name}.weight`, inner, columns);
    const wide = Math.ceil(columns / 8) * 8;
    const bias = this.kernels.zeros(4 * wide);
    this.kernels.i32(bias, columns).set(this.ints(`${name}.bias`));
    return { segments: this.kernels.int32(segments), inner, wide, columns, bias };
  }

  private block(name: string, inner: number, columns: number): [Linear, Linear] {
    return [this.linear(`${name}.inner`, inner, columns), this.linear(`${name}.outer`, columns, columns)];
  }
}

function leastBits(maps: Maps, table: Int32Array): number {
  const top = table.reduce((a, b) => Math.max(a, b));
  const floor = table.reduce((a, b) => Math.min(a, b));
  const coded = maps.level.stop ? maps.sizes.slice(0, 1) : maps.sizes;
  const bits = coded.map((k) => -Math.log2(Math.min(1, top / (top + (k - 1) * floor) + 4 / 2 ** 24)));
  return bits.reduce((a, b) => a + b);
}

export function range(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i);
}
