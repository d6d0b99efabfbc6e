// SPDX-License-Identifier: Apache-2.0
// Orientation, colour profiles and PNG files, in Chromium: against Pillow and LittleCMS (tests/pictures.py).
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { inflateSync } from "node:zlib";
import type { Page } from "playwright-core";
import { describe, expect, it } from "vitest";
import { orientation } from "../src/exif.js";
import { readPng } from "../src/readpng.js";
import { CHROMIUM, DIST, visit } from "./server.js";

interface Entry {
  name: string;
  width: number;
  height: number;
  orientation: number;
  colours: string;
}

const LIST = join(DIST, "test/shown.json");
const ready = CHROMIUM && existsSync(LIST) && existsSync(join(DIST, "models/manifest.json"));
const entries: Entry[] = ready ? JSON.parse(readFileSync(LIST, "utf8")) : [];

/** The chunks of a PNG file by their type. */
function chunks(file: Buffer): Map<string, Buffer> {
  const all = new Map<string, Buffer>();
  for (let at = 8; at < file.length; at += 12 + file.readUInt32BE(at)) {
    const type = file.toString("latin1", at + 4, at + 8);
    if (!all.has(type)) all.set(type, file.subarray(at + 8, at + 8 + file.readUInt32BE(at)));
  }
  return all;
}

describe.runIf(ready)("as it is to be seen, in Chromium", () => {
  let page: Page;

  visit((opened) => {
    page = opened;
  });

  it.each(entries)(
    "$name",
    async ({ name, width, height, orientation: way, colours }) => {
      const result = await page.evaluate(async (name) => {
        const data = await bytes(`/test/${name}.vq2`);
        const image = await vq2.decode(data);
        const stored = await vq2.decode(data, { imageOrientation: "none", colorSpaceConversion: "none" });
        const facts = await vq2.info(data);
        const expected = await unpacked(`/test/${name}.shown.gz`);
        const alpha = image.data.every((value, i) => i % 4 !== 3 || value === expected[i]);
        // A canvas converts between the two spaces that it has, but multiplies by alpha.
        for (const pixels of [image.data, expected]) for (let i = 3; i < pixels.length; i += 4) pixels[i] = 255;
        const canvas = new OffscreenCanvas(image.width, image.height).getContext("2d");
        canvas?.putImageData(image, 0, 0);
        const seen = canvas?.getImageData(0, 0, image.width, image.height) as ImageData;
        return {
          size: [image.width, image.height],
          space: image.colorSpace,
          facts: [facts.orientation, facts.colours],
          alpha,
          seen: difference(seen, expected),
          mean: seen.data.reduce((sum, x, i) => sum + Math.abs(x - (expected[i] as number)), 0) / expected.length,
          stored: difference(stored, await unpacked(`/test/${name}.rgba.gz`)),
        };
      }, name);
      expect(result.size).toEqual([width, height]);
      expect(result.facts).toEqual([way, colours]);
      expect(result.space).toBe(colours === "srgb" || name.includes("grey") ? "srgb" : "display-p3");
      expect(result.alpha).toBe(true);
      expect(result.stored).toBeLessThanOrEqual(1);
      // Where there is a profile: two conversions with 8 bits between them, which stretch the darkest colours.
      expect(result.seen).toBeLessThanOrEqual(colours === "srgb" ? 1 : 8);
      expect(result.mean).toBeLessThan(0.5);
    },
    180_000,
  );

  it.each([2, 5, 6])("has regions of the turned picture: turned%i", async (way) => {
    const result = await page.evaluate(async (way) => {
      const data = await bytes(`/test/turned${way}.vq2`);
      const whole = await vq2.decode(data);
      const part = await vq2.decode(data, { region: { x: 5, y: 9, width: 30, height: 21 } });
      const rows = Array.from({ length: 21 }, (_, y) => {
        const from = 4 * ((9 + y) * whole.width + 5);
        return [...whole.data.subarray(from, from + 120)];
      });
      return difference(part, rows.flat());
    }, way);
    expect(result).toBeLessThanOrEqual(1);
  });

  it("has small pictures of the turned picture", async () => {
    const size = await page.evaluate(async () => {
      const { width, height } = await vq2.decode(await bytes("/test/turned6.vq2"), { level: 1 });
      return [width, height];
    });
    expect(size).toEqual([23, 39]); // half of 45 and 77
  });

  it.each(["turned6", "colour-adobe", "colour-p3", "colour-grey"])(
    "%s becomes a PNG file with the same pixels, its profile and its metadata",
    async (name) => {
      const { file, stored, seen } = await page.evaluate(async (name) => {
        const data = await bytes(`/test/${name}.vq2`);
        const file = new Uint8Array(await (await vq2.toPng(data)).arrayBuffer());
        const stored = await vq2.decode(data, { colorSpaceConversion: "none" });
        interface Decoding {
          decode(): Promise<{ image: { copyTo(to: Uint8ClampedArray, options: object): Promise<void> } }>;
        }
        const { ImageDecoder } = globalThis as unknown as { ImageDecoder: new (options: object) => Decoding };
        const { image } = await new ImageDecoder({
          data: file,
          type: "image/png",
          colorSpaceConversion: "none",
        }).decode();
        const seen = new Uint8ClampedArray(stored.data.length);
        await image.copyTo(seen, { format: "RGBA" });
        for (let i = 3; i < seen.length; i += 4) seen[i] = 255; // of opaque pictures it says nothing
        return { file: Array.from(file), stored: Array.from(stored.data), seen: Array.from(seen) };
      }, name);
      // The browser's reader multiplies by alpha; ours is compared with Pillow's in browser.test.ts.
      const read = await readPng(Uint8Array.from(file));
      expect(read ? Array.from(read) : seen).toEqual(stored);
      const parts = chunks(Buffer.from(file));
      expect(parts.get("IHDR")?.[9]).toBe(name.endsWith("grey") ? 0 : /6|adobe/.test(name) ? 6 : 2);
      if (name.startsWith("turned")) {
        expect(orientation(parts.get("eXIf"))).toBe(1);
        expect(parts.get("eXIf")?.toString("latin1")).toContain("Maker");
        expect(parts.get("iTXt")?.toString("latin1")).toContain("tiff:Orientation='1'");
      } else {
        const profile = parts.get("iCCP") as Buffer;
        expect(inflateSync(profile.subarray(13)).toString("latin1", 36, 40)).toBe("acsp");
      }
    },
    180_000,
  );

  it("tags a picture in Display P3 that has no profile", async () => {
    const file = await page.evaluate(async () => {
      const image = new ImageData(2, 2, { colorSpace: "display-p3" });
      return Array.from(new Uint8Array(await (await vq2.png(image)).arrayBuffer()));
    });
    expect([...(chunks(Buffer.from(file)).get("cICP") ?? [])]).toEqual([12, 13, 0, 1]);
  });
});
