// SPDX-License-Identifier: Apache-2.0
// The package as pages load it, in Chromium: against what Python decoded (tests/pictures.py). Skips without a browser.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Page } from "playwright-core";
import { describe, expect, it } from "vitest";
import { mutations } from "./damage.js";
import { CHROMIUM, DIST, ROOT, visit } from "./server.js";

interface Entry {
  name: string;
  width: number;
  height: number;
  mode: string;
  model: string | null;
  exif: boolean;
  xmp: boolean;
  indices?: string;
  groups?: number;
  levels?: number;
}

const LIST = join(DIST, "test/list.json");
const ready = CHROMIUM && existsSync(LIST) && existsSync(join(DIST, "models/manifest.json"));
const entries: Entry[] = ready ? JSON.parse(readFileSync(LIST, "utf8")) : [];
const byModel = entries.toSorted((a, b) => String(a.model).localeCompare(String(b.model)));
const golden = readdirSync(join(ROOT, "tests/golden")).flatMap((model) => {
  const { indices } = JSON.parse(readFileSync(join(ROOT, "tests/golden", model, "golden.json"), "utf8"));
  return Object.entries<string>(indices).map(([file, expected]) => ({ model, file, expected }));
});

describe.runIf(ready)("in Chromium", () => {
  let page: Page;

  visit(
    (opened) => {
      page = opened;
    },
    { limit: 300_000 },
  );

  // By model, as a decoder keeps two.
  it.each(byModel)(
    "$name: $mode $width x $height of $model",
    async ({ name, width, height, exif, xmp, mode, indices }) => {
      const result = await page.evaluate(async (name) => {
        const data = await bytes(`/test/${name}.vq2`);
        const image = await vq2.decode(data);
        const info = await vq2.info(data);
        const parts = info.headerBytes + info.metadataBytes + info.alphaBytes + info.losslessBytes + info.overheadBytes;
        const all = info.levelBytes.reduce((a, b) => a + b, parts);
        return {
          difference: difference(image, await unpacked(`/test/${name}.rgba.gz`)),
          hash: await hash(data),
          info: [info.width, info.height, info.mode, Boolean(info.exif), Boolean(info.xmp), all === info.fileBytes],
        };
      }, name);
      expect(result.difference).toBeLessThanOrEqual(indices ? 1 : 0);
      if (indices) expect(result.hash).toBe(indices);
      expect(result.info).toEqual([width, height, mode, exif, xmp, true]);
    },
    120_000,
  );

  it.each(golden)("$file of $model has the same indices", async ({ model, file, expected }) => {
    const result = await page.evaluate(async (path) => hash(await bytes(path)), `/golden/${model}/${file}.vq2`);
    expect(result).toBe(expected);
  });

  it("gives a preview, progress, a level and a region", async () => {
    const result = await page.evaluate(async () => {
      const data = await bytes("/test/768x512.vq2");
      let preview: ImageData | undefined;
      const phases = new Set<string>();
      await vq2.decode(data, {
        onPreview: (image) => {
          preview = image;
        },
        onProgress: (phase, done) => phases.add(done >= 0 && done <= 1 ? phase : "wrong"),
      });
      const small = await vq2.decode(data, { level: 1 });
      const region = await vq2.decode(data, { region: { x: 300, y: 200, width: 100, height: 50 } });
      const expected = await unpacked("/test/768x512.preview.gz");
      return {
        differences: [
          difference(preview as ImageData, expected),
          difference(small, expected),
          difference(region, await unpacked("/test/768x512.region.gz")),
        ],
        phases: [...phases].sort(),
      };
    });
    for (const most of result.differences) expect(most).toBeLessThanOrEqual(1);
    expect(result.phases).toContain("indices");
    expect(result.phases).not.toContain("wrong");
  }, 120_000);

  it("stops where it is asked to, and goes on with the next", async () => {
    const result = await page.evaluate(async () => {
      const data = await bytes("/test/768x512.vq2");
      const controller = new AbortController();
      const stopped = vq2.decode(data, { signal: controller.signal, onProgress: () => controller.abort() });
      const name = await stopped.then(
        () => "none",
        (error: Error) => error.name,
      );
      const next = await vq2.decode(await bytes("/test/06.vq2"));
      return [name, next.width];
    });
    expect(result).toEqual(["AbortError", entries[6]?.width]);
  }, 120_000);

  it("answers 1,000 damaged files by a named error or a picture, in under a second, and lives on", async () => {
    const file = readFileSync(join(ROOT, "tests/golden/vq2-light/coffee-17x33.vq2"));
    const damaged = mutations(file, 1000).map((data) => Buffer.from(data).toString("base64"));
    const result = await page.evaluate(async (files) => {
      const names: Record<string, number> = {};
      let slowest = 0;
      for (const file of files) {
        const data = Uint8Array.from(atob(file), (c) => c.charCodeAt(0));
        const start = performance.now();
        const name = await vq2.decode(data, { maxPixels: 2 ** 20 }).then(
          () => "picture",
          (error: Error) => error.name,
        );
        slowest = Math.max(slowest, performance.now() - start);
        names[name] = (names[name] ?? 0) + 1;
      }
      const next = await vq2.decode(await bytes("/golden/vq2-light/coffee-17x33.vq2"));
      return { names, slowest, next: [next.width, next.height] };
    }, damaged);
    const { picture = 0, FormatError = 0, ModelError = 0, ImageError = 0, ...others } = result.names;
    expect(others).toEqual({});
    expect(FormatError).toBeGreaterThan(700);
    expect(picture + FormatError + ModelError + ImageError).toBe(1000);
    expect(result.slowest).toBeLessThan(1000);
    expect(result.next).toEqual([17, 33]);
  }, 240_000);

  it("refuses all hostile files by name", async () => {
    const files = readdirSync(join(ROOT, "tests/hostile/files")).filter((name) => name.endsWith(".vq2"));
    const names = await page.evaluate(async (files) => {
      const names = new Set<string>();
      for (const file of files) {
        await vq2.decode(await bytes(`/hostile/${file}`)).then(
          () => names.add(`${file}: picture`),
          (error: Error) => names.add(error.name),
        );
      }
      return [...names].sort();
    }, files);
    expect(files.length).toBeGreaterThan(50);
    expect(names.every((name) => ["FormatError", "ImageError", "ModelError"].includes(name))).toBe(true);
  }, 120_000);

  it("the page shows a file, says where its bytes went, and an error", async () => {
    await page.setInputFiles("#files", join(ROOT, "tests/golden/vq2-light/cat-300x280.vq2"));
    await page.waitForSelector("body[data-state=done]", { timeout: 60_000 });
    expect(await page.textContent("#list")).toContain("300 × 280");
    expect(await page.textContent("#list")).toContain("vq2-light");
    expect(await page.textContent("#legend")).toContain("Level 2");
    await page.setInputFiles("#files", { name: "no.vq2", mimeType: "", buffer: Buffer.from("no picture") });
    await page.waitForSelector("body[data-state=error]", { timeout: 60_000 });
    expect(await page.textContent("#error")).toContain("FormatError");
  }, 120_000);
});
