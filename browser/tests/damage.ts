// SPDX-License-Identifier: Apache-2.0
import { crc32 } from "../src/bytes.js";

/** Damaged copies of a file: changed and cut bytes; every third with the checksums put right, so that decoding begins. */
export function mutations(file: Uint8Array, count: number): Uint8Array[] {
  let seed = 7;
  const below = (n: number) => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return Math.floor((seed / 2 ** 32) * n);
  };
  return Array.from({ length: count }, (_, i) => {
    const copy = file.slice();
    const data = new Uint8Array(copy.buffer, copy.byteOffset, copy.length);
    if (i % 5 === 4) return data.subarray(0, below(data.length));
    for (let n = 0; n <= below(3); n++) {
      const at = below(data.length);
      data[at] = (data[at] as number) ^ (1 << below(8));
    }
    if (i % 3 === 0) repair(data);
    return data;
  });
}

/** Puts the checksums of all chunks right, as far as they can be told apart. */
function repair(data: Uint8Array): void {
  const view = new DataView(data.buffer, data.byteOffset, data.length);
  let at = 8;
  while (at < data.length) {
    let [length, shift, next] = [0, 0, at + 1];
    for (; next < data.length; shift += 7) {
      const byte = data[next++] as number;
      length += (byte & 127) * 2 ** shift;
      if (byte < 128 || shift > 28) break;
    }
    const end = next + length;
    if (end + 4 > data.length) return;
    view.setUint32(end, crc32(data.subarray(at, end)), true);
    at = end + 4;
  }
}
