// SPDX-License-Identifier: Apache-2.0
// The container of docs/format.md: magic, header, chunks. Every byte is checked.
import { Bytes, crc32 } from "./bytes.js";
import { formatError } from "./errors.js";

export type Mode = "L" | "RGB" | "LA" | "RGBA";

export interface Header {
  width: number;
  height: number;
  mode: Mode;
  lossless: boolean;
  /** Identity of the model, 8 hexadecimal digits; empty in a lossless file. */
  model: string;
  rate: number;
  tileSize: number;
  groupTiles: number;
}

export interface Chunk {
  letter: string;
  payload: Uint8Array;
  /** Bytes of the whole chunk in the file. */
  size: number;
}

export interface Container {
  header: Header;
  /** Bytes of magic and header. */
  headerSize: number;
  chunks: Chunk[];
  /** Words of the range coder, by group of tiles, then by level. */
  streams: Uint8Array[];
}

const MAGIC = [0x89, 0x56, 0x51, 0x32, 0x0d, 0x0a, 0x1a, 0x0a];
const MODES: Mode[] = ["L", "RGB", "LA", "RGBA"];
const ORDER = "CEXALI";
const MAX_SIDE = 65535;
const MAX_PIXELS = 2 ** 28;
const MAX_HEADER = 64;

/** Reads a file whole. Throws FormatError on anything but a complete, undamaged one. */
export function read(data: Uint8Array): Container {
  const file = new Bytes(data);
  const { header, count } = start(file);
  const headerSize = file.at;
  const chunks: Chunk[] = [];
  let previous = "";
  for (let i = 0; i < count; i++) {
    const chunk = readChunk(file);
    if (chunk.letter <= "Z") {
      const rank = ORDER.indexOf(chunk.letter);
      if (rank < 0) throw formatError(`chunk '${chunk.letter}' is not known here: a newer decoder is needed`);
      const repeated = chunk.letter === previous && chunk.letter !== "I";
      if (repeated || rank < ORDER.indexOf(previous)) {
        throw formatError(`chunk '${chunk.letter}' is repeated or out of order`);
      }
      previous = chunk.letter;
    }
    chunks.push(chunk);
  }
  if (file.left) throw formatError(`${file.left} bytes follow the last chunk`);
  const streams = chunks.filter(({ letter }) => letter === "I").map(({ payload }) => payload);
  checkParts(header, chunks, streams);
  return { header, headerSize, chunks, streams };
}

/** The payload of the chunk of a type that occurs once at most. */
export function payload(file: Container, letter: string): Uint8Array | undefined {
  return file.chunks.find((chunk) => chunk.letter === letter)?.payload;
}

/** Groups of tiles of a file. */
export function groups(header: Header): number {
  const tiles = Math.ceil(header.width / header.tileSize) * Math.ceil(header.height / header.tileSize);
  return Math.ceil(tiles / header.groupTiles);
}

function start(file: Bytes): { header: Header; count: number } {
  if (file.left < 8 || MAGIC.some((byte) => file.byte() !== byte)) throw formatError("not a .vq2 file");
  const chunk = readChunk(file, MAX_HEADER);
  if (chunk.letter !== "H") throw formatError("the file does not begin with a header");
  const head = new Bytes(chunk.payload);
  const first = head.byte();
  const version = first & 15;
  if (version !== 2) throw formatError(`version ${version} of the format is not read here`);
  const lossless = first >= 128;
  const mode = MODES[(first >> 4) & 7];
  if (!mode) throw formatError("an unknown mode of the picture");
  const width = head.varint();
  const height = head.varint();
  if (!(width >= 1 && width <= MAX_SIDE && height >= 1 && height <= MAX_SIDE && width * height <= MAX_PIXELS)) {
    throw formatError(`${width}x${height} pixels are beyond the limits of the format`);
  }
  const header: Header = { width, height, mode, lossless, model: "", rate: 0, tileSize: 1, groupTiles: 1 };
  if (!lossless) {
    header.model = hex(head.take(4));
    header.rate = head.byte();
    const tiling = head.byte();
    header.tileSize = 2 ** (tiling & 15);
    header.groupTiles = 2 ** (tiling >> 4);
  }
  const count = head.varint();
  if (head.left) throw formatError("the header is longer than it should be");
  return { header, count };
}

function readChunk(file: Bytes, limit = Number.POSITIVE_INFINITY): Chunk {
  const begin = file.at;
  const letter = String.fromCharCode(file.byte());
  if (!/[A-Za-z]/.test(letter)) throw formatError("the type of a chunk is no letter");
  const length = file.varint();
  if (length > limit) throw formatError("the header is longer than any header");
  const content = file.take(length);
  const sum = crc32(file.data.subarray(begin, file.at));
  if (file.uint32() !== sum) throw formatError(`the checksum of chunk '${letter}' does not match: the file is damaged`);
  return { letter, payload: content, size: file.at - begin };
}

function checkParts(header: Header, chunks: Chunk[], streams: Uint8Array[]): void {
  const has = (letter: string) => chunks.some((chunk) => chunk.letter === letter);
  if (header.lossless || has("L")) {
    if (!header.lossless || !has("L") || streams.length || has("A")) {
      throw formatError("a lossless file has its picture in one chunk, any other file has no such chunk");
    }
    return;
  }
  if (header.groupTiles > 16) throw formatError(`groups have at most 16 tiles, not ${header.groupTiles}`);
  if (streams.some(({ length }) => length % 4)) throw formatError("an index stream is no whole number of words");
  const number = groups(header);
  if (!streams.length || streams.length % number) {
    throw formatError(`${streams.length} index streams for ${number} groups of tiles`);
  }
  if (has("A") !== header.mode.endsWith("A")) throw formatError("an alpha channel and a mode that do not fit");
}

export function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
