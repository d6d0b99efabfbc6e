// SPDX-License-Identifier: Apache-2.0
// Wall times in Chromium, for docs/browser.md: VQ2_TIMES=5 npx vitest run tests/times.test.ts, on a machine with nothing
// else to do. Without that variable it skips.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { browse, CHROMIUM, DIST, opened, serve } from "./server.js";

const runs = Number(process.env.VQ2_TIMES ?? 0);
const ready = runs && CHROMIUM && existsSync(join(DIST, "test/768x512.vq2"));

const median = (all: number[]) => [...all].sort((a, b) => a - b)[Math.floor(all.length / 2)] as number;

describe.runIf(ready)("times in Chromium", () => {
  it("of a picture of 768x512 pixels", async () => {
    const server = await serve();
    const context = await browse();
    const page = await opened(context, server.url);
    const result = await page.evaluate(async (runs) => {
      const data = await bytes("/test/768x512.vq2");
      const decoder = new vq2.Decoder({ webgpu: false });
      const start = performance.now();
      await decoder.decode(await bytes("/golden/vq2-light/coffee-17x33.vq2"));
      const loaded = performance.now() - start;
      const preview: number[] = [];
      const whole: number[] = [];
      const alone: number[] = [];
      const phases: Record<string, number>[] = [];
      for (let run = 0; run < runs; run++) {
        const begin = performance.now();
        const ends: Record<string, number> = {};
        await decoder.decode(data, {
          onPreview: () => preview.push(performance.now() - begin),
          onProgress: (phase) => {
            ends[phase] = Math.round(performance.now() - begin);
          },
        });
        whole.push(performance.now() - begin);
        phases.push(ends);
        const again = performance.now();
        await decoder.decode(data);
        alone.push(performance.now() - again);
      }
      decoder.close();
      return { bpp: (8 * data.length) / (768 * 512), loaded, preview, whole, alone, phases };
    }, runs);
    await context.close();
    server.close();
    const line = (name: string, all: number[]) =>
      `${name}: median ${(median(all) / 1000).toFixed(2)} s of ${all.map((ms) => (ms / 1000).toFixed(2)).join(" ")}\n`;
    process.stdout.write(`${result.bpp.toFixed(2)} bpp; model and networks ready in ${Math.round(result.loaded)} ms\n`);
    process.stdout.write(line("preview", result.preview) + line("whole, with preview", result.whole));
    process.stdout.write(`${line("whole, without", result.alone)}${JSON.stringify(result.phases)}\n`);
    expect(result.whole.length).toBe(runs);
  }, 350_000);
});
