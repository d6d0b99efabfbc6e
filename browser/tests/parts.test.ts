// SPDX-License-Identifier: Apache-2.0
// Parts of the decoder by themselves, in Node.js.
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { Bytes, crc32 } from "../src/bytes.js";
import { coloursOf } from "../src/colours.js";
import { read } from "../src/container.js";
import { orientation, tags, upright } from "../src/exif.js";
import { info } from "../src/info.js";
import { Kernels } from "../src/kernels.js";
import { steps, tiles } from "../src/orders.js";
import { halves } from "../src/pixels.js";
import { png } from "../src/png.js";
import { readPng } from "../src/readpng.js";
import { turned, unturned } from "../src/turning.js";
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
  const little = Uint8Array.of(73, 73, 42, 0, 8, 0, 0, 0, 1, 0, 0x12, 1, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0);
  const big = Uint8Array.of(77, 77, 0, 42, 0, 0, 0, 8, 0, 1, 1, 0x12, 0, 3, 0, 0, 0, 1, 0, 8, 0, 0);

  it("gives the tags that it has, and nothing where it is damaged", () => {
    expect(tags(little)).toEqual([["Orientation", "6"]]);
    expect(tags(little.subarray(0, 15))).toEqual([]);
    expect(tags(new Uint8Array(0))).toEqual([]);
  });

  it("says how a picture is to be turned, and forgets it", () => {
    const prefixed = Uint8Array.of(...new TextEncoder().encode("Exif\0\0"), ...little);
    expect([little, big, prefixed].map(orientation)).toEqual([6, 8, 6]);
    expect([little, big, prefixed].map((block) => orientation(upright(block)))).toEqual([1, 1, 1]);
    expect(upright(prefixed).length).toBe(little.length);
    const wrong = little.slice();
    wrong[18] = 9;
    expect([undefined, wrong, little.subarray(0, 19)].map(orientation)).toEqual([1, 1, 1]);
  });
});

describe("turning", () => {
  const stored = { width: 3, height: 2, data: new Uint8ClampedArray(new Uint32Array([1, 2, 3, 4, 5, 6]).buffer) };
  // As the table of the EXIF standard says where row 0 and column 0 are to be seen.
  const seen = ["123 456", "321 654", "654 321", "456 123", "14 25 36", "41 52 63", "63 52 41", "36 25 14"];

  it.each(seen.map((rows, i) => [i + 1, rows] as const))("%i", (way, rows) => {
    const { width, data } = turned(stored, way);
    const digits = [...new Uint32Array(data.buffer)].join("");
    expect(digits.match(new RegExp(`.{${width}}`, "g"))?.join(" ")).toBe(rows);
    // The pixel in the right upper corner comes from where a region of that pixel lies.
    const corner = unturned({ x: width - 1, y: 0, width: 1, height: 1 }, way, 3, 2);
    expect(String(1 + corner.x + 3 * corner.y)).toBe(rows.split(" ")[0]?.at(-1));
  });
});

describe("PNG", () => {
  const value = (i: number) => (i * i * 7 + (i >> 3)) & 255;

  it.each([
    ["RGBA", 6, (i: number) => value(i)],
    ["LA", 4, (i: number) => (i % 4 === 3 ? value(i) : value(i >> 2))],
  ])("%s is written and read", async (_, kind, pixel) => {
    const image = { width: 13, height: 11, data: Uint8ClampedArray.from({ length: 4 * 13 * 11 }, (_, i) => pixel(i)) };
    const file = new Uint8Array(await (await png(image)).arrayBuffer());
    expect(file[25]).toBe(kind);
    expect(await readPng(file)).toEqual(image.data);
    for (const data of mutations(file, 200)) {
      await readPng(data).catch((error: Error) => expect(["RangeError", "TypeError"]).toContain(error.name));
    }
  });
});

describe("colour profiles", () => {
  it("that are damaged are the browser's to judge", () => {
    const profile = Uint8Array.from({ length: 200 }, (_, i) => i);
    expect(coloursOf(undefined)).toBe("srgb");
    for (const length of [0, 100, 130, 200]) expect(coloursOf(profile.subarray(0, length))).toBe("other");
  });
});
