// SPDX-License-Identifier: Apache-2.0
// The WebAssembly kernels and their memory.
import { exactnessError } from "./errors.js";
import { BINARY } from "./kernels.generated.js";

type Int = number;

export interface Exports {
  memory: WebAssembly.Memory;
  heapStart(): Int;
  pack(source: Int, inner: Int, columns: Int, wide: Int, target: Int): void;
  product(x: Int, rows: Int, segments: Int, count: Int, inner: Int, wide: Int, bias: Int, out: Int): void;
  rounded(source: Int, count: Int, shift: Int, low: Int, target: Int): void;
  added(a: Int, b: Int, count: Int, target: Int): void;
  limited(at: Int, count: Int): void;
  gate(u: Int, rows: Int, channels: Int, target: Int): void;
  gather(table: Int, index: Int, rows: Int, delta: Int, channels: Int, target: Int, stride: Int): void;
  scatter(source: Int, index: Int, rows: Int, channels: Int, table: Int): void;
  addRows(table: Int, index: Int, rows: Int, count: Int, channels: Int, target: Int): void;
  start(state: Int, words: Int, count: Int): void;
  decode(state: Int, logits: Int, rows: Int, parts: Int, codes: Int, stride: Int, table: Int, sums: Int, out: Int): Int;
  complete(state: Int): Int;
  attend(
    queries: Int,
    rows: Int,
    keys: Int,
    known: Int,
    channels: Int,
    heads: Int,
    shift: Int,
    exponential: Int,
    weights: Int,
    out: Int,
  ): void;
}

const PAGE = 65536;

/** One instance of the kernels. Memory is taken from the end and given back to a mark. */
export class Kernels {
  private top: number;

  private constructor(readonly run: Exports) {
    this.top = align(run.heapStart());
  }

  static async create(): Promise<Kernels> {
    const bytes = Uint8Array.from(atob(BINARY), (c) => c.charCodeAt(0));
    const { instance } = await WebAssembly.instantiate(bytes, { env: { abort: () => undefined } });
    const kernels = new Kernels(instance.exports as unknown as Exports);
    knownAnswer(kernels);
    return kernels;
  }

  /** So many bytes, aligned to 16; what they hold is not defined. */
  take(bytes: number): number {
    const at = this.top;
    this.top = align(at + bytes);
    const { memory } = this.run;
    const missing = this.top - memory.buffer.byteLength;
    if (missing > 0) memory.grow(Math.ceil(missing / PAGE));
    return at;
  }

  /** The same, all zero. */
  zeros(bytes: number): number {
    const at = this.take(bytes);
    this.u8(at, bytes).fill(0);
    return at;
  }

  get mark(): number {
    return this.top;
  }

  release(mark: number): void {
    this.top = mark;
  }

  // Views are good until the next `take`.
  u8(at: number, length: number): Uint8Array {
    return new Uint8Array(this.run.memory.buffer, at, length);
  }
  i16(at: number, length: number): Int16Array {
    return new Int16Array(this.run.memory.buffer, at, length);
  }
  i32(at: number, length: number): Int32Array {
    return new Int32Array(this.run.memory.buffer, at, length);
  }

  /** Copies numbers in. */
  int32(values: ArrayLike<number>): number {
    const at = this.take(4 * values.length);
    this.i32(at, values.length).set(values);
    return at;
  }
  int16(values: ArrayLike<number>): number {
    const at = this.take(2 * values.length);
    this.i16(at, values.length).set(values);
    return at;
  }
  bytes(values: Uint8Array): number {
    const at = this.take(values.length);
    this.u8(at, values.length).set(values);
    return at;
  }
}

function align(at: number): number {
  return (at + 15) & ~15;
}

/** Compares products, rounding and gates with plain arithmetic. Throws ExactnessError if any bit differs. */
function knownAnswer(kernels: Kernels): void {
  const { run } = kernels;
  const mark = kernels.mark;
  const [rows, inner, wide] = [7, 1040, 16];
  let seed = 1;
  const draw = () => {
    seed = (Math.imul(seed, 1664525) + 1013904223) | 0;
    return ((seed >>> 8) % 255) - 127;
  };
  const x = Array.from({ length: rows * inner }, (_, i) => (i < inner ? 127 : draw()));
  const w = Array.from({ length: inner * wide }, (_, i) => (i % wide === 0 ? 127 : i % wide === 1 ? -127 : draw()));
  const source = kernels.bytes(new Uint8Array(Int8Array.from(w).buffer));
  const packed = kernels.take(2 * inner * wide);
  run.pack(source, inner, wide, wide, packed);
  const bias = kernels.int32(Array.from({ length: wide }, (_, i) => i - 8));
  const out = kernels.take(4 * rows * wide);
  run.product(kernels.int16(x), rows, kernels.int32([packed]), 1, inner, wide, bias, out);
  const small = kernels.take(2 * rows * wide);
  run.rounded(out, rows * wide, 7, -127, small);
  const gated = kernels.take(rows * wide);
  run.gate(out, rows, wide / 2, gated);
  const sums = kernels.i32(out, rows * wide);
  const halves = kernels.i16(small, rows * wide);
  const gates = kernels.i16(gated, (rows * wide) / 2);
  const limit = (v: number, low: number) => Math.min(127, Math.max(low, v));
  for (let i = 0; i < rows; i++) {
    for (let o = 0; o < wide; o++) {
      let sum = o - 8;
      for (let k = 0; k < inner; k++) sum += (x[i * inner + k] as number) * (w[k * wide + o] as number);
      if (sums[i * wide + o] !== sum || halves[i * wide + o] !== limit((sum + 64) >> 7, -127)) {
        throw exactnessError("this machine does not compute products exactly; files decoded here would be wrong");
      }
    }
    for (let c = 0; c < wide / 2; c++) {
      const a = limit(((sums[i * wide + c] as number) + 16) >> 5, -127);
      const g = limit(((sums[i * wide + wide / 2 + c] as number) + 64 * 128 + 64) >> 7, 0);
      if (gates[(i * wide) / 2 + c] !== (a * g + 64) >> 7) {
        throw exactnessError("this machine does not compute gates exactly; files decoded here would be wrong");
      }
    }
  }
  kernels.release(mark);
}
