// SPDX-License-Identifier: Apache-2.0
// Writes PNG files: a canvas would lose the colours under a transparent alpha, and all metadata.
import { crc32 } from "./bytes.js";

/** What a PNG file says beside its pixels. */
export interface PngMetadata {
  icc?: Uint8Array | undefined;
  /** From the TIFF header on. */
  exif?: Uint8Array | undefined;
  xmp?: string | undefined;
}

interface Pixels {
  width: number;
  height: number;
  data: Uint8ClampedArray;
  colorSpace?: string;
}

const SIGNATURE = Uint8Array.of(137, 80, 78, 71, 13, 10, 26, 10);
const COLOURS = { 1: 0, 2: 4, 3: 2, 4: 6 } as const; // by the number of channels
const DISPLAY_P3 = Uint8Array.of(12, 13, 0, 1); // primaries, transfer, RGB, full range: of H.273

/** A PNG file of a picture: grey where it is all grey, and without alpha where it is opaque. */
export async function png(image: Pixels, { icc, exif, xmp }: PngMetadata = {}): Promise<Blob> {
  const { width, height } = image;
  const profile = icc && new TextDecoder().decode(icc.subarray(16, 20)); // "RGB " or "GRAY"
  const channels = channelsOf(image.data, profile);
  const head = new Uint8Array(13);
  const view = new DataView(head.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  head.set([8, COLOURS[channels]], 8);
  const parts = [SIGNATURE, chunk("IHDR", head)];
  if (icc) parts.push(chunk("iCCP", text("ICC profile\0\0"), await deflated(icc)));
  else if (image.colorSpace === "display-p3") parts.push(chunk("cICP", DISPLAY_P3));
  if (exif) parts.push(chunk("eXIf", exif));
  if (xmp) parts.push(chunk("iTXt", text("XML:com.adobe.xmp\0\0\0\0\0"), text(xmp)));
  parts.push(chunk("IDAT", await deflated(filtered(image, channels))), chunk("IEND"));
  return new Blob(parts, { type: "image/png" });
}

function channelsOf(data: Uint8ClampedArray, profile: string | undefined): 1 | 2 | 3 | 4 {
  let opaque = true;
  let grey = profile !== "RGB ";
  for (let i = 0; i < data.length && (opaque || grey); i += 4) {
    if (data[i + 3] !== 255) opaque = false;
    if (data[i] !== data[i + 1] || data[i] !== data[i + 2]) grey = false;
  }
  if (grey || profile === "GRAY") return opaque ? 1 : 2;
  return opaque ? 3 : 4;
}

/** Rows, each behind the number of its filter: of none, left, above and Paeth the one with the smallest sum. */
function filtered({ data, width, height }: Pixels, channels: 1 | 2 | 3 | 4): Uint8Array<ArrayBuffer> {
  const length = width * channels;
  const out = new Uint8Array(height * (length + 1));
  const takes = { 1: [0], 2: [0, 3], 3: [0, 1, 2], 4: [0, 1, 2, 3] }[channels];
  // One pixel of zeros stands before every row.
  let row = new Uint8Array(channels + length);
  let above = new Uint8Array(channels + length);
  const tries = [0, 1, 2, 4].map((filter) => ({ filter, row: new Uint8Array(length) }));
  for (let y = 0; y < height; y++) {
    for (let x = 0, to = channels, from = 4 * y * width; x < width; x++, from += 4) {
      for (const take of takes) row[to++] = data[from + take] as number;
    }
    let best = tries[0] as (typeof tries)[0];
    let least = Number.POSITIVE_INFINITY;
    for (const attempt of tries) {
      const sum = filter(attempt.filter, row, above, channels, attempt.row);
      if (sum < least) [least, best] = [sum, attempt];
    }
    out[y * (length + 1)] = best.filter;
    out.set(best.row, y * (length + 1) + 1);
    [row, above] = [above, row];
  }
  return out;
}

/** Returns the sum of the differences. */
function filter(kind: number, row: Uint8Array, above: Uint8Array, channels: number, out: Uint8Array): number {
  let sum = 0;
  for (let i = 0, at = channels; i < out.length; i++, at++) {
    const [left, up, corner] = [row[i] as number, above[at] as number, above[i] as number];
    let guess = 0;
    if (kind === 1) guess = left;
    else if (kind === 2) guess = up;
    else if (kind === 4) {
      const [a, b, c] = [Math.abs(up - corner), Math.abs(left - corner), Math.abs(left + up - 2 * corner)];
      guess = a <= b && a <= c ? left : b <= c ? up : corner;
    }
    const rest = ((row[at] as number) - guess) & 255;
    out[i] = rest;
    sum += rest < 128 ? rest : 256 - rest;
  }
  return sum;
}

function chunk(type: string, ...payload: Uint8Array[]): Uint8Array<ArrayBuffer> {
  const length = payload.reduce((sum, part) => sum + part.length, 0);
  const out = new Uint8Array(12 + length);
  const view = new DataView(out.buffer);
  view.setUint32(0, length);
  out.set(text(type), 4);
  let at = 8;
  for (const part of payload) {
    out.set(part, at);
    at += part.length;
  }
  view.setUint32(at, crc32(out.subarray(4, at)));
  return out;
}

function text(value: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(value);
}

/** In the format of zlib. */
async function deflated(data: Uint8Array): Promise<Uint8Array<ArrayBuffer>> {
  const stream = new Blob([data as BlobPart]).stream().pipeThrough(new CompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
