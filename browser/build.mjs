// SPDX-License-Identifier: Apache-2.0
// Builds the kernels: assembly/ -> src/kernels.generated.ts, with the module in it, so that a page needs no more files.
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const folder = mkdtempSync(join(tmpdir(), "vq2-"));
const file = join(folder, "kernels.wasm");
const options = ["-O3", "--runtime", "stub", "--noAssert", "--enable", "simd"];
execFileSync("node_modules/.bin/asc", ["assembly/index.ts", "-o", file, ...options], { stdio: "inherit" });
const text = readFileSync(file).toString("base64");
const head = "// SPDX-License-Identifier: Apache-2.0\n// Made by build.mjs from assembly/.\n";
writeFileSync("src/kernels.generated.ts", `${head}export const BINARY =\n  "${text}";\n`);
rmSync(folder, { recursive: true });
