// SPDX-License-Identifier: Apache-2.0
// Parts of the decoder by themselves, in Node.js.
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { tags } from "../page/exif.js";
import { Bytes, crc32 } from "../src/bytes.js";
import { read } from "../src/container.js";
import { info } from "../src/info.js";
import { Kernels } from "../src/kernels.js";
import { steps, tiles } from "../src/orders.js";
import { halves } from "../src/pixels.js";
import { mutations } from "./damage.js";

const FILE = new Uint8Array(readFileSync(new URL("../../tests/golden/vq2-light/cat-300x280.vq2", import.meta.url)));

describe("bytes", () => {
  it("have the checksum of zlib", () => {
    expect(crc32(new TextEncoder().encode("123456789"))).toBe(0xcbf43926);
  });

  it("hold numbers in their shortest form only", () => {
    expect(new Bytes(Uint8Array.of(0xff, 0x7f)).varint()).toBe(16383);
    expect(new Bytes(Uint8Array.of(0xff, 0xff, 0xff, 0xff, 0x0f)).varint()).toBe(2 ** 32 - 1);
    for (const bytes of [[0x80, 0], [0x80], [128, 128, 128, 128, 128, 1]]) {
      expect(() => new Bytes(Uint8Array.from(bytes)).varint()).toThrow();
    }
  });

  it("of float16 become float32", () => {
    const values = halves(Uint8Array.of(0, 0x3c, 0, 0xc0, 1, 0, 0xff, 0x7b, 0, 0x7c));
    expect([...values]).toEqual([1, -2, 2 ** -24, 65504, Number.POSITIVE_INFINITY]);
  });
});

describe("container", () => {
  it("is read whole", async () => {
    const { header, streams } = read(FILE);
    expect([header.width, header.height, header.mode]).toEqual([300, 280, "RGB"]);
    expect(streams.length).toBe(3);
    const facts = await info(FILE);
    const words = facts.levelBytes.reduce((a, b) => a + b, 0);
    expect(facts.headerBytes + words + facts.overheadBytes).toBe(FILE.length);
  });

  it("refuses every changed byte and every cut", () => {
    const refused = (data: Uint8Array) =>
      expect(() => read(data)).toThrow(expect.objectContaining({ name: "FormatError" }));
    for (let at = 0; at < FILE.length; at += 7) {
      const data = FILE.slice();
      data[at] = (data[at] as number) ^ 16;
      refused(data);
      refused(FILE.subarray(0, at));
    }
    refused(Uint8Array.of(...FILE, 0));
  });

  it("reads or refuses what was forged", () => {
    for (const data of mutations(FILE, 500)) {
      try {
        read(data);
      } catch (error) {
        expect((error as Error).name).toBe("FormatError");
      }
    }
  });
});

describe("orders", () => {
  it.each(["seven", "waves"])("%s has every position once, and taps of earlier steps only", (order) => {
    const all = steps(order, 16);
    const number = new Map(all.flatMap((step) => [...step.positions].map((at) => [at, step.number] as const)));
    expect(number.size).toBe(256);
    for (const step of all) {
      for (const at of step.positions) {
        const [y, x] = [Math.floor(at / 16), at % 16];
        for (const { dy, dx } of step.taps) {
          const inside = y + dy >= 0 && y + dy < 16 && x + dx >= 0 && x + dx < 16;
          if (inside) expect(number.get((y + dy) * 16 + x + dx)).toBeLessThan(step.number);
        }
      }
    }
  });

  it("groups tiles in bands of four rows", () => {
    const groups = tiles(5, 3, 4);
    expect(groups.map((group) => group.length)).toEqual([4, 4, 4, 3]);
    expect(groups[0]).toEqual([
      [0, 0],
      [1, 0],
      [2, 0],
      [3, 0],
    ]);
    expect(groups[3]).toEqual([
      [4, 0],
      [4, 1],
      [4, 2],
    ]);
  });
});

describe("kernels", () => {
  it("look back as the formula says", async () => {
    const k = await Kernels.create();
    const [channels, heads, known] = [16, 2, 5];
    const value = (i: number) => ((i * 37) % 255) - 127;
    const query = Array.from({ length: channels }, (_, i) => value(i));
    const keys = Array.from({ length: known * 2 * channels }, (_, i) => value(i * 3 + 1));
    const table = Array.from({ length: 256 }, (_, d) => Math.round(32768 * Math.exp(-d / 16)));
    const out = k.take(2 * channels);
    k.run.attend(k.int16(query), 1, k.int16(keys), known, channels, heads, 8, k.int32(table), k.take(4 * known), out);
    const dim = channels / heads;
    const expected: number[] = [];
    for (let head = 0; head < heads; head++) {
      const scores = Array.from({ length: known }, (_, j) => {
        let sum = 0;
        for (let d = head * dim; d < (head + 1) * dim; d++)
          sum += (query[d] as number) * (keys[j * 2 * channels + d] as number);
        return (sum + 128) >> 8;
      });
      const peak = Math.max(0, ...scores);
      const weights = scores.map((score) => table[Math.min(peak - score, 255)] as number);
      const total = (table[Math.min(peak, 255)] as number) + weights.reduce((a, b) => a + b, 0);
      for (let d = head * dim; d < (head + 1) * dim; d++) {
        const sum = weights.reduce((a, w, j) => a + w * (keys[j * 2 * channels + channels + d] as number), 0);
        expected.push(Math.floor((2 * sum + total) / (2 * total)));
      }
    }
    expect([...k.i16(out, channels)]).toEqual(expected);
  });
});

describe("EXIF", () => {
  it("gives the tags that it has, and nothing where it is damaged", () => {
    const block = Uint8Array.of(73, 73, 42, 0, 8, 0, 0, 0, 1, 0, 0x12, 1, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0);
    expect(tags(block)).toEqual([["Orientation", "6"]]);
    expect(tags(block.subarray(0, 15))).toEqual([]);
    expect(tags(new Uint8Array(0))).toEqual([]);
  });
});
