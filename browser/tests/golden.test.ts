// SPDX-License-Identifier: Apache-2.0
import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { read } from "../src/container.js";
import { decodeIndices, Priors } from "../src/indices.js";
import { Kernels } from "../src/kernels.js";
import { readWeights } from "../src/weights.js";

const ROOT = new URL("../../", import.meta.url);
const MODELS = readdirSync(new URL("tests/golden/", ROOT));

describe.each(MODELS)("golden files of %s", async (name) => {
  const folder = new URL(`tests/golden/${name}/`, ROOT);
  const golden = JSON.parse(readFileSync(new URL("golden.json", folder), "utf8"));
  const weights = readFileSync(new URL(`models/${name}.safetensors`, ROOT));
  const identity = createHash("sha256").update(weights).digest("hex").slice(0, 8);
  const priors = new Priors(await Kernels.create(), readWeights(weights), identity);

  it("are of this model", () => {
    expect(identity).toBe(golden.identity);
  });

  it.each(Object.entries<string>(golden.indices))("%s has the indices of Python", async (file, expected) => {
    const maps = await decodeIndices(priors, read(readFileSync(new URL(`${file}.vq2`, folder))));
    const digest = createHash("sha256");
    for (const { data } of maps) digest.update(new Uint8Array(data.buffer));
    expect(digest.digest("hex")).toBe(expected);
  });
});
