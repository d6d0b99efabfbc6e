#!/usr/bin/env node
// SPDX-License-Identifier: Apache-2.0
// npx vq2-copy FOLDER: what a page loads at run time, from the installed packages into a folder that is served.
import { cpSync, existsSync, mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { RUNTIME } from "./runtime.mjs";

const [folder] = process.argv.slice(2);
if (!folder || folder.startsWith("-")) {
  process.stderr.write(
    "usage: vq2-copy FOLDER\nCopies the scripts of vq2, and onnxruntime-web's files into FOLDER/ort.\n",
  );
  process.exit(2);
}
const dist = fileURLToPath(new URL("../dist/", import.meta.url));
const runtime = dirname(createRequire(import.meta.url).resolve("onnxruntime-web"));
mkdirSync(join(folder, "ort"), { recursive: true });
for (const file of ["index.js", "worker.js", "img.js"]) cpSync(join(dist, file), join(folder, file));
for (const file of RUNTIME) cpSync(join(runtime, file), join(folder, "ort", file));
if (!existsSync(join(folder, "models/manifest.json"))) {
  process.stdout.write(`Models are still to come: python tools/export_web.py --out ${join(folder, "models")}\n`);
}
