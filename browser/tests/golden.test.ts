// SPDX-License-Identifier: Apache-2.0
// Indices equal to Python's: of all golden files, and of the pictures of tests/pictures.py where they were made.
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { read } from "../src/container.js";
import { decodeIndices, Priors } from "../src/indices.js";
import { Kernels } from "../src/kernels.js";
import { readWeights } from "../src/weights.js";

const ROOT = new URL("../../", import.meta.url);
const LIST = new URL("browser/dist/test/list.json", ROOT);
const made: { name: string; model: string | null; indices?: string }[] = existsSync(LIST)
  ? JSON.parse(readFileSync(LIST, "utf8"))
  : [];

describe.each(readdirSync(new URL("tests/golden/", ROOT)))("files of %s", async (name) => {
  const folder = new URL(`tests/golden/${name}/`, ROOT);
  const golden = JSON.parse(readFileSync(new URL("golden.json", folder), "utf8"));
  const weights = readFileSync(new URL(`models/${name}.safetensors`, ROOT));
  const identity = createHash("sha256").update(weights).digest("hex").slice(0, 8);
  const priors = new Priors(await Kernels.create(), readWeights(weights), identity);

  async function hashOf(file: URL): Promise<string> {
    const digest = createHash("sha256");
    for (const { data } of await decodeIndices(priors, read(readFileSync(file)))) {
      digest.update(new Uint8Array(data.buffer));
    }
    return digest.digest("hex");
  }

  it("are of this model", () => {
    expect(identity).toBe(golden.identity);
  });

  it.each(Object.entries<string>(golden.indices))("golden: %s", async (file, expected) => {
    expect(await hashOf(new URL(`${file}.vq2`, folder))).toBe(expected);
  });

  it.each(made.filter(({ model }) => model === name))("made: $name", async ({ name: file, indices }) => {
    expect(await hashOf(new URL(`${file}.vq2`, LIST))).toBe(indices);
  });
});
