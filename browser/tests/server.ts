// SPDX-License-Identifier: Apache-2.0
// dist/ on a port of this machine, and Chromium that looks at it.
import { existsSync, mkdtempSync, readFileSync, statSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { type BrowserContext, chromium } from "playwright-core";

export const ROOT = fileURLToPath(new URL("../../", import.meta.url));
export const DIST = join(ROOT, "browser/dist");
const TYPES: Record<string, string> = {
  ".html": "text/html",
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".css": "text/css",
  ".json": "application/json",
  ".wasm": "application/wasm",
};

/** Serves dist/, and under /golden/ and /hostile/ files of the repository's tests. */
export async function serve(): Promise<{ url: string; close(): void }> {
  const folders: [string, string][] = [
    ["/golden/", join(ROOT, "tests/golden")],
    ["/hostile/", join(ROOT, "tests/hostile/files")],
    ["/", DIST],
  ];
  const server = createServer(({ url }, answer) => {
    const path = decodeURIComponent(new URL(url ?? "/", "http://x").pathname);
    const [prefix, folder] = folders.find(([start]) => path.startsWith(start)) as [string, string];
    const file = normalize(join(folder, path.slice(prefix.length) || "index.html"));
    if (!file.startsWith(folder) || !existsSync(file) || !statSync(file).isFile()) {
      answer.writeHead(404).end();
      return;
    }
    answer.writeHead(200, { "content-type": TYPES[extname(file)] ?? "application/octet-stream" });
    answer.end(readFileSync(file));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return { url: `http://127.0.0.1:${port}/`, close: () => server.close() };
}

export const CHROMIUM = ["/usr/bin/chromium", "/usr/bin/google-chrome"].find(existsSync);

const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** A headless browser with a new profile. */
export function browse(): Promise<BrowserContext> {
  const profile = mkdtempSync(join(tmpdir(), "vq2-chromium-"));
  const options = { executablePath: CHROMIUM as string, headless: true, args: FLAGS };
  return chromium.launchPersistentContext(profile, { ...options, viewport: { width: 1280, height: 800 } });
}
