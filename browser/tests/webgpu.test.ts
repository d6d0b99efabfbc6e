// SPDX-License-Identifier: Apache-2.0
// Pixels by WebGPU against those by WASM and by Python. Chromium brings a program that acts as the adapter
// (SwiftShader), so that no graphics processor is needed. Skips without a browser, an adapter or VQ2_WEBGPU.
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { Page } from "playwright-core";
import { describe, expect, it } from "vitest";
import { CHROMIUM, DIST, visit } from "./server.js";

const LIST = join(DIST, "test/list.json");
const ready = CHROMIUM && existsSync(LIST) && existsSync(join(DIST, "models/manifest.json"));
// SwiftShader takes minutes on a slow machine: VQ2_WEBGPU=05,04 names the pictures to compare.
const names = (process.env.VQ2_WEBGPU ?? "").split(",").filter(Boolean);

const ADAPTER = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan"];
const FLAGS = [...ADAPTER, "--use-vulkan=swiftshader", "--enable-unsafe-swiftshader"];

describe.runIf(ready)("WebGPU in Chromium", () => {
  let page: Page;
  let adapter: string | undefined;

  visit(
    async (opened) => {
      page = opened;
      adapter = await page.evaluate(async () => {
        interface Gpu {
          requestAdapter(): Promise<{ info?: { vendor: string; architecture: string } } | null>;
        }
        const found = await (navigator as { gpu?: Gpu }).gpu?.requestAdapter().catch(() => null);
        return found ? `${found.info?.vendor} ${found.info?.architecture}` : undefined;
      });
    },
    { flags: FLAGS },
  );

  it("gives the pixels of WASM and of Python", async ({ skip }) => {
    if (!names.length) skip("VQ2_WEBGPU names no pictures");
    if (!adapter) skip("this Chromium gives no WebGPU adapter");
    const results = await page.evaluate(async (names) => {
      const byWasm = new vq2.Decoder({ webgpu: false });
      const byGpu = new vq2.Decoder({ webgpu: "always" });
      const results = [];
      for (const name of names) {
        const data = await bytes(`/test/${name}.vq2`);
        const wasm = await byWasm.decode(data);
        const gpu = await byGpu.decode(data);
        const python = await unpacked(`/test/${name}.rgba.gz`);
        const other = wasm.data.reduce((sum, value, i) => sum + Number(value !== gpu.data[i]), 0);
        results.push({
          name,
          backends: [byWasm.backend, byGpu.backend],
          wasm: difference(gpu, wasm.data),
          python: difference(gpu, python),
          share: other / wasm.data.length,
        });
      }
      byWasm.close();
      byGpu.close();
      return results;
    }, names);
    for (const { name, wasm, python, share } of results) {
      process.stdout.write(
        `${adapter}: ${name} ${wasm} from WASM (${(100 * share).toFixed(3)} %), ${python} from Python\n`,
      );
    }
    expect(results.some(({ backends }) => String(backends) === "wasm,webgpu")).toBe(true);
    for (const { backends, wasm, python } of results) {
      if (backends[0]) expect(backends).toEqual(["wasm", "webgpu"]); // pictures without loss need neither
      expect(Math.max(wasm, python)).toBeLessThanOrEqual(1);
    }
  }, 340_000);

  it("leaves an adapter that is a program aside, as WASM is faster", async ({ skip }) => {
    if (!adapter?.includes("swiftshader")) skip("the adapter is not SwiftShader");
    const backend = await page.evaluate(async () => {
      const decoder = new vq2.Decoder();
      await decoder.decode(await bytes("/golden/vq2-light/coffee-17x33.vq2"));
      decoder.close();
      return decoder.backend;
    });
    expect(backend).toBe("wasm");
  }, 120_000);

  it.each(["lost", "none"])(
    "goes on with WASM where WebGPU is %s",
    async (folder) => {
      const result = await page.evaluate(async (runtime) => {
        const decoder = new vq2.Decoder({ webgpu: "always", runtime });
        const image = await decoder.decode(await bytes("/golden/vq2-light/coffee-17x33.vq2"));
        decoder.close();
        return [decoder.backend, image.width];
      }, `/${folder}/`);
      expect(result).toEqual(["wasm", 17]);
    },
    120_000,
  );
});
