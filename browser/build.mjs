// SPDX-License-Identifier: Apache-2.0
// Builds the package into dist/, and beside it what the page needs but for the models (tools/export_web.py):
//   assembly/ -> src/kernels.generated.ts, with the module in it, so that a page needs no more files
//   src/, page/ -> dist/, bundled
//   onnxruntime-web -> dist/ort/
// With the word `kernels` it only makes the first.
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { build } from "esbuild";
import { RUNTIME } from "./bin/runtime.mjs";

function kernels() {
  const folder = mkdtempSync(join(tmpdir(), "vq2-"));
  const file = join(folder, "kernels.wasm");
  const options = ["-O3", "--runtime", "stub", "--noAssert", "--enable", "simd"];
  execFileSync("node_modules/.bin/asc", ["assembly/index.ts", "-o", file, ...options], { stdio: "inherit" });
  const text = readFileSync(file).toString("base64");
  const head = "// SPDX-License-Identifier: Apache-2.0\n// Made by build.mjs from assembly/.\n";
  writeFileSync("src/kernels.generated.ts", `${head}export const BINARY: string =\n  "${text}";\n`);
  rmSync(folder, { recursive: true });
}

kernels();
if (process.argv[2] !== "kernels") {
  await build({
    entryPoints: { index: "src/index.ts", worker: "src/worker.ts", img: "page/img.ts", page: "page/page.ts" },
    bundle: true,
    format: "esm",
    target: "es2022",
    minify: true,
    outdir: "dist",
    logLevel: "warning",
  });
  execFileSync("node_modules/.bin/tsc", ["-p", "tsconfig.types.json"], { stdio: "inherit" });
  writeFileSync("dist/img.d.ts", "export {};\n");
  cpSync("../LICENSE", "LICENSE");
  mkdirSync("dist/ort", { recursive: true });
  for (const file of RUNTIME) cpSync(`node_modules/onnxruntime-web/dist/${file}`, `dist/ort/${file}`);
  for (const file of ["index.html", "page.css"]) cpSync(`page/${file}`, `dist/${file}`);
}
