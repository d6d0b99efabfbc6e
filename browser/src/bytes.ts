// SPDX-License-Identifier: Apache-2.0
import { formatError } from "./errors.js";

const TABLE = new Uint32Array(256).map((_, n) => {
  let c = n;
  for (let bit = 0; bit < 8; bit++) c = c & 1 ? 0xedb88320 ^ (c >>> 1) : c >>> 1;
  return c;
});

/** CRC-32, as in PNG and zlib. */
export function crc32(data: Uint8Array): number {
  let c = 0xffffffff;
  for (const byte of data) c = (TABLE[(c ^ byte) & 255] as number) ^ (c >>> 8);
  return (c ^ 0xffffffff) >>> 0;
}

/** Takes numbers off the front of some bytes. Throws FormatError where there are too few of them. */
export class Bytes {
  at = 0;
  constructor(readonly data: Uint8Array) {}

  get left(): number {
    return this.data.length - this.at;
  }

  take(length: number): Uint8Array {
    if (length > this.left) throw formatError("the file is cut short");
    this.at += length;
    return this.data.subarray(this.at - length, this.at);
  }

  byte(): number {
    return this.take(1)[0] as number;
  }

  /** Unsigned LEB128 in its shortest form, at most 5 bytes. */
  varint(): number {
    let value = 0;
    for (let i = 0; i < 5; i++) {
      const byte = this.byte();
      value += (byte & 127) * 2 ** (7 * i);
      if (byte < 128) {
        if (i && !byte) throw formatError("a number is not in its shortest form");
        return value;
      }
    }
    throw formatError("a number has more than 5 bytes");
  }

  uint32(): number {
    const [a, b, c, d] = this.take(4) as unknown as [number, number, number, number];
    return (a | (b << 8) | (c << 16) | (d << 24)) >>> 0;
  }
}
