// SPDX-License-Identifier: Apache-2.0
// dist/ on a port of this machine, and Chromium that looks at it.
import { existsSync, mkdtempSync, readFileSync, statSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { type BrowserContext, chromium, type Page } from "playwright-core";
import { afterAll, beforeAll } from "vitest";

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

// A runtime whose graphics processor gets lost; one whose half for WebGPU is missing has an empty file.
const LOST = `
import * as ort from "/ort/ort.webgpu.min.mjs";
export const { env, Tensor } = ort;
const session = { run: () => Promise.reject(new Error("the device is lost")), release: () => undefined };
export const InferenceSession = { create: async () => session };
`;
const MADE: Record<string, string> = { "/lost/ort.webgpu.min.mjs": LOST, "/none/ort.webgpu.min.mjs": "" };

/** Serves dist/, and under /golden/ and /hostile/ files of the repository's tests; /lost/ and /none/ are /ort/.
 * pages: more, by their paths. */
export async function serve(pages: Record<string, string> = {}): Promise<{ url: string; close(): void }> {
  const folders: [string, string][] = [
    ["/golden/", join(ROOT, "tests/golden")],
    ["/hostile/", join(ROOT, "tests/hostile/files")],
    ["/lost/", join(DIST, "ort")],
    ["/none/", join(DIST, "ort")],
    ["/", DIST],
  ];
  const server = createServer(({ url }, answer) => {
    const path = decodeURIComponent(new URL(url ?? "/", "http://x").pathname);
    const text = pages[path] ?? MADE[path];
    if (text !== undefined) {
      answer.writeHead(200, { "content-type": TYPES[extname(path)] ?? "text/plain" }).end(text);
      return;
    }
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
  return { url: `http://localhost:${port}/`, close: () => server.close() };
}

export const CHROMIUM = ["/usr/bin/chromium", "/usr/bin/google-chrome"].find(existsSync);

const FLAGS = [
  "--no-sandbox",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** A headless browser with a new profile. flags: of Chromium, beside the usual ones. */
export function browse(flags = ["--disable-gpu"]): Promise<BrowserContext> {
  const profile = mkdtempSync(join(tmpdir(), "vq2-chromium-"));
  const options = { executablePath: CHROMIUM as string, headless: true, args: [...FLAGS, ...flags] };
  return chromium.launchPersistentContext(profile, { ...options, viewport: { width: 1280, height: 800 } });
}

// Not a function, as Vite would rewrite its import.
const HELPERS = `
import * as vq2 from "/index.js";
const bytes = async (path) => new Uint8Array(await (await fetch(path)).arrayBuffer());
const unpacked = async (path) => {
  const stream = (await fetch(path)).body.pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
};
const difference = (image, expected) => {
  if (image.data.length !== expected.length) return Infinity;
  return image.data.reduce((most, value, i) => Math.max(most, Math.abs(value - expected[i])), 0);
};
const hash = async (data) => {
  const levels = await vq2.indices(data);
  const all = await new Blob(levels.map(({ data }) => data)).arrayBuffer();
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", all));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
};
Object.assign(globalThis, { vq2, bytes, unpacked, difference, hash });
`;

/** A page of the server with the package and the helpers above as globals. */
export async function opened(context: BrowserContext, url: string): Promise<Page> {
  const page = await context.newPage();
  await page.goto(url, { timeout: 120_000 });
  await page.addScriptTag({ type: "module", content: HELPERS });
  await page.waitForFunction("globalThis.vq2");
  return page;
}

/** Gives a `describe` a page of a server and a browser of its own while its tests run.
 * flags: as of `browse`. pages: as of `serve`; the first of them is opened, without the helpers, in place of the viewer.
 * limit: milliseconds that all this may take. */
export function visit(
  use: (page: Page) => void | Promise<void>,
  { flags, pages = {}, limit = 120_000 }: { flags?: string[]; pages?: Record<string, string>; limit?: number } = {},
): void {
  let server: Awaited<ReturnType<typeof serve>> | undefined;
  let context: BrowserContext | undefined;

  beforeAll(async () => {
    server = await serve(pages);
    context = await browse(flags);
    const [path] = Object.keys(pages);
    const page = path ? await context.newPage() : await opened(context, server.url);
    if (path) await page.goto(new URL(path, server.url).href, { timeout: 120_000 });
    await use(page);
  }, limit);

  afterAll(async () => {
    await context?.close();
    server?.close();
  });
}

// What the helpers put into the page.
declare global {
  const vq2: typeof import("../src/index.js");
  function bytes(path: string): Promise<Uint8Array>;
  /** Of a gzip file. */
  function unpacked(path: string): Promise<Uint8Array>;
  /** The largest one. */
  function difference(image: ImageData, expected: ArrayLike<number>): number;
  /** SHA-256 of the indices of a file, as Python's golden files have it. */
  function hash(data: Uint8Array): Promise<string>;
}
