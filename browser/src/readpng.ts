// SPDX-License-Identifier: Apache-2.0
// Reads PNG files with an alpha channel: browsers multiply colours by alpha, and cannot give back what they were.
import { crc32 } from "./bytes.js";

const CHANNELS: Record<number, 2 | 4> = { 4: 2, 6: 4 };

/**
 * RGBA of a PNG file of 8 bits a channel that has an alpha channel and is not interlaced; undefined for any other. The
 * caller has compared its size. Throws where it is damaged.
 */
export async function readPng(file: Uint8Array): Promise<Uint8ClampedArray<ArrayBuffer> | undefined> {
  const view = new DataView(file.buffer, file.byteOffset, file.length);
  const [width, height] = [view.getUint32(16), view.getUint32(20)];
  const channels = CHANNELS[file[25] as number];
  if (!channels || file[24] !== 8 || file[28]) return undefined;
  const parts: Uint8Array[] = [];
  for (let at = 8; at < file.length; ) {
    const length = view.getUint32(at);
    const type = String.fromCharCode(...file.subarray(at + 4, at + 8));
    if (crc32(file.subarray(at + 4, at + 8 + length)) !== view.getUint32(at + 8 + length)) {
      throw new RangeError(`the checksum of ${type} does not match`);
    }
    if (type === "IDAT") parts.push(file.subarray(at + 8, at + 8 + length));
    at += 12 + length;
  }
  const rows = await inflatedTo(parts, height * (width * channels + 1));
  unfiltered(rows, width * channels, channels);
  const out = new Uint8ClampedArray(4 * width * height);
  const takes = channels === 2 ? [0, 0, 0, 1] : [0, 1, 2, 3];
  for (let y = 0, to = 0; y < height; y++) {
    for (let x = 0, from = y * (width * channels + 1) + 1; x < width; x++, from += channels) {
      for (const take of takes) out[to++] = rows[from + take] as number;
    }
  }
  return out;
}

/** Exactly so many bytes. */
async function inflatedTo(parts: Uint8Array[], length: number): Promise<Uint8Array> {
  const stream = new Blob(parts as BlobPart[]).stream().pipeThrough(new DecompressionStream("deflate"));
  const reader = stream.getReader();
  const out = new Uint8Array(length);
  let at = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    if (at + value.length > length) {
      await reader.cancel();
      throw new RangeError("it has more rows than it should");
    }
    out.set(value, at);
    at += value.length;
  }
  if (at < length) throw new RangeError("it has fewer rows than it should");
  return out;
}

/** Takes the filters off, in place. length: of a row without the number of its filter. */
function unfiltered(rows: Uint8Array, length: number, channels: number): void {
  const line = length + 1;
  for (let start = 0; start < rows.length; start += line) {
    const kind = rows[start] as number;
    if (kind > 4) throw new RangeError("a filter is not known");
    for (let i = 1; kind && i <= length; i++) {
      const at = start + i;
      const left = i > channels ? (rows[at - channels] as number) : 0;
      const up = start ? (rows[at - line] as number) : 0;
      const corner = start && i > channels ? (rows[at - line - channels] as number) : 0;
      let guess = kind === 1 ? left : kind === 2 ? up : (left + up) >> 1;
      if (kind === 4) {
        const [a, b, c] = [Math.abs(up - corner), Math.abs(left - corner), Math.abs(left + up - 2 * corner)];
        guess = a <= b && a <= c ? left : b <= c ? up : corner;
      }
      rows[at] = (rows[at] as number) + guess;
    }
  }
}
