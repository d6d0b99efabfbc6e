// SPDX-License-Identifier: Apache-2.0
// Integer kernels of the prior, compiled to WebAssembly with SIMD by AssemblyScript. Vectors are 16-bit integers, sums
// of products 32-bit ones: docs/prior.md bounds every sum below 2^24, so that nothing overflows in any order.
// Numbers of channels and columns are multiples of 8 (the callers pad the latter).

/** First byte that nothing of this module uses. */
export function heapStart(): usize {
  return __heap_base;
}

/** Weights int8 [inner, columns] -> int16 [wide / 8, inner / 2, 8, 2], `wide` being columns rounded up to 8. */
export function pack(source: usize, inner: i32, columns: i32, wide: i32, target: usize): void {
  for (let block = 0; block < wide; block += 8) {
    for (let i = 0; i < inner; i += 2) {
      for (let c = block; c < block + 8; c++) {
        const at = source + i * columns + c;
        store<i16>(target, c < columns ? <i16>load<i8>(at) : 0);
        store<i16>(target, c < columns ? <i16>load<i8>(at + columns) : 0, 2);
        target += 4;
      }
    }
  }
}

/**
 * x [rows, segments * inner] times weights, plus bias: int32 [rows, wide]. Every segment of `inner` rows of the weights
 * lies where `segments` says, packed; `bias` has `wide` numbers.
 */
export function product(
  x: usize, rows: i32, segments: usize, count: i32, inner: i32, wide: i32, bias: usize, out: usize,
): void {
  const panel = 32;
  for (let first = 0; first < rows; first += panel) {
    const last = min(rows, first + panel);
    for (let block = 0; block < wide; block += 8) {
      let row = first;
      for (; row + 4 <= last; row += 4) four(x, row, segments, count, inner, wide, bias, out, block);
      for (; row < last; row++) one(x, row, segments, count, inner, wide, bias, out, block);
    }
  }
}

// @ts-ignore: decorator
@inline
function multiply(sum: v128, x: v128, weights: v128): v128 {
  return i32x4.add(sum, i32x4.dot_i16x8_s(x, weights));
}

function four(
  x: usize, row: i32, segments: usize, count: i32, inner: i32, wide: i32, bias: usize, out: usize, block: i32,
): void {
  const stride: usize = <usize>(count * inner) << 1;
  let x0 = x + <usize>row * stride;
  const low = v128.load(bias + (<usize>block << 2)), high = v128.load(bias + (<usize>block << 2), 16);
  let a0 = low, a1 = low, a2 = low, a3 = low, b0 = high, b1 = high, b2 = high, b3 = high;
  const offset: usize = (<usize>block * inner) << 1;
  for (let s = 0; s < count; s++) {
    let w: usize = load<usize>(segments + (<usize>s << 2)) + offset;
    const end = x0 + (<usize>inner << 1);
    for (; x0 < end; x0 += 4, w += 32) {
      const w0 = v128.load(w), w1 = v128.load(w, 16);
      const p = v128.load32_splat(x0), q = v128.load32_splat(x0 + stride);
      const r = v128.load32_splat(x0 + 2 * stride), t = v128.load32_splat(x0 + 3 * stride);
      a0 = multiply(a0, p, w0);
      b0 = multiply(b0, p, w1);
      a1 = multiply(a1, q, w0);
      b1 = multiply(b1, q, w1);
      a2 = multiply(a2, r, w0);
      b2 = multiply(b2, r, w1);
      a3 = multiply(a3, t, w0);
      b3 = multiply(b3, t, w1);
    }
  }
  const line: usize = <usize>wide << 2;
  let to = out + <usize>row * line + (<usize>block << 2);
  v128.store(to, a0);
  v128.store(to, b0, 16);
  to += line;
  v128.store(to, a1);
  v128.store(to, b1, 16);
  to += line;
  v128.store(to, a2);
  v128.store(to, b2, 16);
  to += line;
  v128.store(to, a3);
  v128.store(to, b3, 16);
}

function one(
  x: usize, row: i32, segments: usize, count: i32, inner: i32, wide: i32, bias: usize, out: usize, block: i32,
): void {
  let x0 = x + ((<usize>row * <usize>(count * inner)) << 1);
  let a = v128.load(bias + (<usize>block << 2)), b = v128.load(bias + (<usize>block << 2), 16);
  const offset: usize = (<usize>block * inner) << 1;
  for (let s = 0; s < count; s++) {
    let w: usize = load<usize>(segments + (<usize>s << 2)) + offset;
    const end = x0 + (<usize>inner << 1);
    for (; x0 < end; x0 += 4, w += 32) {
      const p = v128.load32_splat(x0);
      a = multiply(a, p, v128.load(w));
      b = multiply(b, p, v128.load(w, 16));
    }
  }
  const to = out + ((<usize>row * wide + block) << 2);
  v128.store(to, a);
  v128.store(to, b, 16);
}

// @ts-ignore: decorator
@inline
function rescaled(at: usize, half: v128, shift: i32): v128 {
  return i32x4.shr_s(i32x4.add(v128.load(at), half), shift);
}

/** floor(x / 2^shift + 1/2), limited to low..127: int32 -> int16, `count` of them, a multiple of 8. */
export function rounded(source: usize, count: i32, shift: i32, low: i32, target: usize): void {
  const half = i32x4.splat((1 << shift) >> 1), least = i16x8.splat(<i16>low), most = i16x8.splat(127);
  for (let i = 0; i < count; i += 8, source += 32, target += 16) {
    const both = i16x8.narrow_i32x4_s(rescaled(source, half, shift), rescaled(source + 16, half, shift));
    v128.store(target, i16x8.min_s(i16x8.max_s(both, least), most));
  }
}

/** a + b limited to -127..127, int16; `target` may be either. */
export function added(a: usize, b: usize, count: i32, target: usize): void {
  const least = i16x8.splat(-127), most = i16x8.splat(127);
  for (let i = 0; i < count; i += 8, a += 16, b += 16, target += 16) {
    const sum = i16x8.add_sat_s(v128.load(a), v128.load(b));
    v128.store(target, i16x8.min_s(i16x8.max_s(sum, least), most));
  }
}

/** Limits int16 to -127..127 where they are. */
export function limited(at: usize, count: i32): void {
  const least = i16x8.splat(-127), most = i16x8.splat(127);
  for (let i = 0; i < count; i += 8, at += 16) {
    v128.store(at, i16x8.min_s(i16x8.max_s(v128.load(at), least), most));
  }
}

/** Gated unit: int32 [rows, 2 * channels] -> int16 [rows, channels]. */
export function gate(u: usize, rows: i32, channels: i32, target: usize): void {
  const least = i32x4.splat(-127), most = i32x4.splat(127), zero = i32x4.splat(0);
  const half5 = i32x4.splat(16), half7 = i32x4.splat(64), middle = i32x4.splat(64 * 128 + 64);
  for (let row = 0; row < rows; row++, u += <usize>channels << 3) {
    const g = u + (<usize>channels << 2);
    for (let c: usize = 0; c < <usize>channels << 2; c += 32, target += 16) {
      const t0 = i32x4.min_s(i32x4.max_s(rescaled(u + c, half5, 5), least), most);
      const t1 = i32x4.min_s(i32x4.max_s(rescaled(u + c + 16, half5, 5), least), most);
      const s0 = i32x4.min_s(i32x4.max_s(rescaled(g + c, middle, 7), zero), most);
      const s1 = i32x4.min_s(i32x4.max_s(rescaled(g + c + 16, middle, 7), zero), most);
      const y0 = i32x4.shr_s(i32x4.add(i32x4.mul(t0, s0), half7), 7);
      const y1 = i32x4.shr_s(i32x4.add(i32x4.mul(t1, s1), half7), 7);
      v128.store(target, i16x8.narrow_i32x4_s(y0, y1));
    }
  }
}

/** Rows `index[i] + delta` of a table int16 [., channels] to columns of a matrix whose rows are `stride` bytes apart. */
export function gather(
  table: usize, index: usize, rows: i32, delta: i32, channels: i32, target: usize, stride: usize,
): void {
  const bytes: usize = <usize>channels << 1;
  for (let i = 0; i < rows; i++, index += 4, target += stride) {
    const from = table + <usize>(load<i32>(index) + delta) * bytes;
    for (let c: usize = 0; c < bytes; c += 16) v128.store(target + c, v128.load(from + c));
  }
}

/** Rows of a matrix int16 [rows, channels] to rows `index[i]` of a table. */
export function scatter(source: usize, index: usize, rows: i32, channels: i32, table: usize): void {
  const bytes: usize = <usize>channels << 1;
  for (let i = 0; i < rows; i++, index += 4, source += bytes) {
    const to = table + <usize>load<i32>(index) * bytes;
    for (let c: usize = 0; c < bytes; c += 16) v128.store(to + c, v128.load(source + c));
  }
}

/** Adds to every row of int16 [rows, channels] the rows `index[i, 0..count-1]` of a table int8 [., channels]. */
export function addRows(table: usize, index: usize, rows: i32, count: i32, channels: i32, target: usize): void {
  for (let row = 0; row < rows; row++, target += <usize>channels << 1) {
    for (let k = 0; k < count; k++, index += 4) {
      const from = table + <usize>load<i32>(index) * <usize>channels;
      for (let c: usize = 0; c < <usize>channels; c += 8) {
        const to = target + (c << 1);
        v128.store(to, i16x8.add(v128.load(to), v128.load8x8_s(from + c)));
      }
    }
  }
}
