// SPDX-License-Identifier: Apache-2.0
import { type Colours, coloursOf } from "./colours.js";
import { type Container, groups, type Mode, payload, read } from "./container.js";
import { formatError } from "./errors.js";
import { orientation } from "./exif.js";

/** What a file holds, and where its bytes went. Sizes are in bytes; the parts add up to `fileBytes`. */
export interface Info {
  /** As stored: `orientation` 5 to 8 swaps width and height. */
  width: number;
  height: number;
  /** How EXIF says that the picture is to be turned, 1 (not at all) to 8. */
  orientation: number;
  /** What its profile says of its colours; "srgb" without one. */
  colours: Colours;
  mode: Mode;
  lossless: boolean;
  /** 8 hexadecimal digits; empty in a lossless file. */
  model: string;
  /** The trade-off, 0 (the best pictures) to 255 (the smallest files). */
  rate: number;
  fileBytes: number;
  bpp: number;
  headerBytes: number;
  metadataBytes: number;
  alphaBytes: number;
  losslessBytes: number;
  /** Words of the index streams by level, coarsest first. */
  levelBytes: number[];
  /** Framing of the streams, and chunks that readers skip. */
  overheadBytes: number;
  groups: number;
  tileSize: number;
  icc?: Uint8Array;
  exif?: Uint8Array;
  xmp?: string;
}

const MAX_BLOCK = 64 * 2 ** 20;

/** Reads a file without its pixels. Throws FormatError unless it is a complete, undamaged one. */
export async function info(data: Uint8Array): Promise<Info> {
  return describe(read(data), data.length);
}

async function describe(file: Container, fileBytes: number): Promise<Info> {
  const { header, streams } = file;
  const sizes = (letters: string) =>
    file.chunks.reduce((sum, { letter, size }) => sum + (letters.includes(letter) ? size : 0), 0);
  const count = header.lossless ? 1 : groups(header);
  const levels = streams.length / count;
  const levelBytes: number[] = Array(levels).fill(0);
  streams.forEach((stream, i) => {
    levelBytes[i % levels] = (levelBytes[i % levels] as number) + stream.length;
  });
  const words = levelBytes.reduce((a, b) => a + b, 0);
  const [metadataBytes, alphaBytes, losslessBytes] = [sizes("CEX"), sizes("A"), sizes("L")];
  const known = file.headerSize + metadataBytes + alphaBytes + losslessBytes + words;
  const [icc, exif, xmp] = await Promise.all(["C", "E", "X"].map((letter) => inflated(payload(file, letter))));
  return {
    width: header.width,
    height: header.height,
    orientation: orientation(exif),
    colours: coloursOf(icc),
    mode: header.mode,
    lossless: header.lossless,
    model: header.model,
    rate: header.rate,
    fileBytes,
    bpp: (8 * fileBytes) / (header.width * header.height),
    headerBytes: file.headerSize,
    metadataBytes,
    alphaBytes,
    losslessBytes,
    levelBytes,
    overheadBytes: fileBytes - known,
    groups: header.lossless ? 0 : count,
    tileSize: header.lossless ? 0 : header.tileSize,
    ...(icc && { icc }),
    ...(exif && { exif }),
    ...(xmp && { xmp: new TextDecoder().decode(xmp) }),
  };
}

/** A block of metadata, with a limit. */
export async function inflated(block: Uint8Array | undefined): Promise<Uint8Array | undefined> {
  if (!block) return undefined;
  const stream = new Blob([block as BlobPart]).stream().pipeThrough(new DecompressionStream("deflate"));
  const reader = stream.getReader();
  const parts: Uint8Array[] = [];
  let length = 0;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      parts.push(value);
      length += value.length;
      if (length > MAX_BLOCK) throw new RangeError("it is over 64 MiB");
    }
  } catch (error) {
    await reader.cancel().catch(() => undefined);
    throw formatError(`a block of metadata cannot be read: ${(error as Error).message}`);
  }
  const data = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    data.set(part, at);
    at += part.length;
  }
  return data;
}
