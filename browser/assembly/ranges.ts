// SPDX-License-Identifier: Apache-2.0
// The range decoder of docs/prior.md, and the attention of the coarsest levels.
// The state of a decoder, in bytes: 0 range u64, 8 offset u64, 16 words pointer, 20 their number, 24 words read.

// @ts-ignore: decorator
@inline
function word(state: usize): u64 {
  const at = load<u32>(state, 24);
  store<u32>(state, at + 1, 24);
  return at < load<u32>(state, 20) ? <u64>load<u32>(load<usize>(state, 16) + (<usize>at << 2)) : 0;
}

export function start(state: usize, words: usize, count: i32): void {
  store<u64>(state, u64.MAX_VALUE);
  store<usize>(state, words, 16);
  store<i32>(state, count, 20);
  store<u32>(state, 0, 24);
  const first = word(state);
  store<u64>(state, (first << 32) | word(state), 8);
}

/**
 * Decodes an index for every row of logits: int32 [rows, codes], `stride` bytes apart, still to be divided by 2^8.
 * `sums` is scratch for codes + 1 numbers. Returns 0, 1 if no encoder wrote the stream, 2 if its words run out.
 */
export function decode(
  state: usize, logits: usize, rows: i32, parts: i32, codes: i32, stride: usize, table: usize, sums: usize, out: usize,
): i32 {
  const scaleTop = <f32>((1 << 24) - codes);
  for (let row = 0; row < rows; row++, logits += stride) {
    let values = logits;
    for (let part = 0; part < parts; part++, values += <usize>codes << 2, out += 4) {
      let peak = i32.MIN_VALUE;
      for (let k = 0; k < codes; k++) peak = max(peak, load<i32>(values + (<usize>k << 2)));
      peak = (peak + 128) >> 8;
      let total: u32 = 0;
      for (let k = 0; k < codes; k++) {
        store<u32>(sums + (<usize>k << 2), total);
        const below = peak - ((load<i32>(values + (<usize>k << 2)) + 128) >> 8);
        total += load<u32>(table + (<usize>min(below, 255) << 2));
      }
      const scale: f32 = scaleTop / <f32>total;
      const unit = load<u64>(state) >> 24;
      const offset = load<u64>(state, 8);
      const wide = offset / unit;
      if (wide >= 1 << 24) return 1;
      const quantile = <i32>wide;
      let low = 0, high = codes, from = 0, to = 1 << 24;
      while (high - low > 1) {
        const middle = (low + high) >> 1;
        const bound = <i32>floor(<f32>load<u32>(sums + (<usize>middle << 2)) * scale) + middle;
        if (bound <= quantile) {
          low = middle;
          from = bound;
        } else {
          high = middle;
          to = bound;
        }
      }
      let rest = offset - unit * <u64>from;
      let range = unit * <u64>(to - from);
      if (range < 1 << 32) {
        range <<= 32;
        rest = (rest << 32) | word(state);
        // n indices have been shifted out: n + 1 words are needed, n + 2 have been read
        if (load<u32>(state, 24) > load<u32>(state, 20) + 1) return 2;
      }
      store<u64>(state, range);
      store<u64>(state, rest, 8);
      store<i32>(out, low);
    }
  }
  return 0;
}

/** Whether the words are those that the encoder writes for the indices that were decoded, no more and no others. */
export function complete(state: usize): bool {
  const count = load<u32>(state, 20), range = load<u64>(state);
  const read = load<u32>(state, 24); // n + 2
  if (range == u64.MAX_VALUE) return count == 0;
  const words = load<usize>(state, 16), offset = load<u64>(state, 8);
  const last: u64 = load<u32>(words + (<usize>(read - 2) << 2));
  // The words that were read, minus the offset, are the lower end L of the range; modulo 2^64 here.
  const lower: u64 = (last << 32) - offset;
  if (offset >= 1 << 32) return false; // the words are not the least number above L
  const more = (lower + range) >> 32 == last;
  if (count != read - (more ? 0 : 1)) return false;
  return !more || load<u32>(words + (<usize>(read - 1) << 2)) == 0;
}

/**
 * Looks from queries int16 [rows, channels] at the keys and values int16 [known, 2 * channels] of a tile.
 * `weights` is scratch for `known` numbers; `exponential` int32 [256]. Writes int16 [rows, channels].
 */
export function attend(
  queries: usize, rows: i32, keys: usize, known: i32, channels: i32, heads: i32, shift: i32, exponential: usize,
  weights: usize, out: usize,
): void {
  const dim = channels / heads;
  const bytes: usize = <usize>channels << 2; // of a key and its value
  const step: i64 = max(1, 0x7fffffff / (127 * <i64>load<i32>(exponential))); // products that a 32-bit sum holds
  for (let row = 0; row < rows; row++) {
    for (let head = 0; head < heads; head++) {
      const column: usize = <usize>(head * dim) << 1;
      const query = queries + ((<usize>row * channels) << 1) + column;
      let peak = 0;
      for (let k = 0; k < known; k++) {
        const score = (dot(query, keys + <usize>k * bytes + column, dim) + ((1 << shift) >> 1)) >> shift;
        store<i32>(weights + (<usize>k << 2), score);
        peak = max(peak, score);
      }
      let total: i64 = load<i32>(exponential + (<usize>min(peak, 255) << 2));
      for (let k = 0; k < known; k++) {
        const at = weights + (<usize>k << 2);
        const weight = load<i32>(exponential + (<usize>min(peak - load<i32>(at), 255) << 2));
        store<i32>(at, weight);
        total += weight;
      }
      const target = out + ((<usize>row * channels) << 1) + column;
      const value = keys + (<usize>channels << 1) + column;
      for (let d = 0; d < dim; d += 8) blend(value + (<usize>d << 1), bytes, weights, known, step, total, target + (<usize>d << 1), dim - d);
    }
  }
}

function dot(a: usize, b: usize, dim: i32): i32 {
  let sum = i32x4.splat(0), rest = 0, d = 0;
  for (; d + 8 <= dim; d += 8, a += 16, b += 16) sum = i32x4.add(sum, i32x4.dot_i16x8_s(v128.load(a), v128.load(b)));
  for (; d < dim; d++, a += 2, b += 2) rest += <i32>load<i16>(a) * <i32>load<i16>(b);
  return rest + i32x4.extract_lane(sum, 0) + i32x4.extract_lane(sum, 1) + i32x4.extract_lane(sum, 2)
    + i32x4.extract_lane(sum, 3);
}

/** The weighted mean of up to eight numbers of all values, rounded half up. */
function blend(
  value: usize, bytes: usize, weights: usize, known: i32, step: i64, total: i64, target: usize, left: i32,
): void {
  if (left < 8) {
    for (let d = 0; d < left; d++) {
      let sum: i64 = 0;
      for (let k = 0; k < known; k++) {
        sum += <i64>load<i32>(weights + (<usize>k << 2)) * <i64>load<i16>(value + <usize>k * bytes + (<usize>d << 1));
      }
      store<i16>(target + (<usize>d << 1), mean(sum, total));
    }
    return;
  }
  let a = i64x2.splat(0), b = a, c = a, e = a;
  let k = 0;
  while (k < known) {
    const end = <i32>min(<i64>known, <i64>k + step);
    let low = i32x4.splat(0), high = low;
    for (; k < end; k++) {
      const weight = v128.load32_splat(weights + (<usize>k << 2));
      const both = v128.load(value + <usize>k * bytes);
      low = i32x4.add(low, i32x4.mul(weight, i32x4.extend_low_i16x8_s(both)));
      high = i32x4.add(high, i32x4.mul(weight, i32x4.extend_high_i16x8_s(both)));
    }
    a = i64x2.add(a, i64x2.extend_low_i32x4_s(low));
    b = i64x2.add(b, i64x2.extend_high_i32x4_s(low));
    c = i64x2.add(c, i64x2.extend_low_i32x4_s(high));
    e = i64x2.add(e, i64x2.extend_high_i32x4_s(high));
  }
  store<i16>(target, mean(i64x2.extract_lane(a, 0), total), 0);
  store<i16>(target, mean(i64x2.extract_lane(a, 1), total), 2);
  store<i16>(target, mean(i64x2.extract_lane(b, 0), total), 4);
  store<i16>(target, mean(i64x2.extract_lane(b, 1), total), 6);
  store<i16>(target, mean(i64x2.extract_lane(c, 0), total), 8);
  store<i16>(target, mean(i64x2.extract_lane(c, 1), total), 10);
  store<i16>(target, mean(i64x2.extract_lane(e, 0), total), 12);
  store<i16>(target, mean(i64x2.extract_lane(e, 1), total), 14);
}

/** floor((2 * sum + total) / (2 * total)). */
function mean(sum: i64, total: i64): i16 {
  const top = 2 * sum + total, bottom = 2 * total;
  const quotient = top / bottom;
  return <i16>(quotient - (top % bottom < 0 ? 1 : 0));
}
