// SPDX-License-Identifier: Apache-2.0

import { tags } from "../src/exif.js";
import type { Backend, Info } from "../src/index.js";
import { swaps } from "../src/turning.js";

const byId = (id: string) => document.getElementById(id) as HTMLElement;

/** 12,345 bytes or 1.23 MB. */
function bytes(size: number): string {
  if (size >= 1e6) return `${(size / 1e6).toFixed(2)} MB`;
  return `${size.toLocaleString("en")} bytes`;
}

/** Shows what a file holds and where its bytes went. */
export function showFacts(name: string, info: Info, model: string | undefined): void {
  byId("facts").hidden = false;
  byId("name").textContent = name;
  const [width, height] = swaps(info.orientation) ? [info.height, info.width] : [info.width, info.height];
  const rows: [string, string][] = [
    ["Picture", `${width} × ${height}, ${info.mode}`],
    ["File", `${bytes(info.fileBytes)}, ${info.bpp.toFixed(3)}\u00a0bpp`],
    ["Model", info.lossless ? "none, stored without loss" : `${model ?? "unknown"} (${info.model})`],
  ];
  if (!info.lossless) {
    rows.push(
      ["Trade-off", `${info.rate} of 0 (best) to 255`],
      ["Tiles", `${info.tileSize} px, ${info.groups} group(s)`],
    );
  }
  list("list", rows);
  shares(info);
  const more: [string, string][] = [];
  if (info.exif) more.push(...tags(info.exif).map(turnedTag), ["EXIF", bytes(info.exif.length)]);
  if (info.icc) more.push(["Colour profile", `${profile(info.icc)}, ${bytes(info.icc.length)}`]);
  if (info.xmp) more.push(["XMP", bytes(info.xmp.length)]);
  byId("metadata").hidden = !more.length;
  list("tags", more);
}

/** The orientation has been applied, which its number does not tell. */
function turnedTag([name, value]: [string, string]): [string, string] {
  return name === "Orientation" && value !== "1" ? [name, `${value}, turned`] : [name, value];
}

/** Adds how long the picture took. */
export function showTime(milliseconds: number, backend: Backend | undefined): void {
  const by = backend ? `, ${{ wasm: "WASM", webgpu: "WebGPU" }[backend]}` : "";
  byId("list").append(...row("Decoded", `in ${(milliseconds / 1000).toFixed(2)} s${by}`));
}

function list(id: string, rows: [string, string][]): void {
  byId(id).replaceChildren(...rows.flatMap(([term, value]) => row(term, value)));
}

function row(term: string, value: string): HTMLElement[] {
  const [dt, dd] = [document.createElement("dt"), document.createElement("dd")];
  dt.textContent = term;
  dd.textContent = value;
  return [dt, dd];
}

function shares(info: Info): void {
  const parts: [string, number, string][] = info.levelBytes.map((size, i) => [
    `Level ${i}`,
    size,
    `--s${Math.min(i, 2)}`,
  ]);
  parts.push(
    ["Picture", info.losslessBytes, "--s0"],
    ["Alpha", info.alphaBytes, "--s5"],
    ["Metadata", info.metadataBytes, "--s6"],
    ["Header and framing", info.headerBytes + info.overheadBytes, "--s4"],
  );
  const there = parts.filter(([, size]) => size);
  const percent = (size: number) => `${((100 * size) / info.fileBytes).toFixed(1)} %`;
  byId("shares").setAttribute("aria-label", there.map(([name, size]) => `${name} ${percent(size)}`).join(", "));
  byId("shares").replaceChildren(
    ...there.map(([, size, colour]) => {
      const bar = document.createElement("span");
      bar.style.flex = String(size);
      bar.style.background = `var(${colour})`;
      return bar;
    }),
  );
  byId("legend").replaceChildren(
    ...there.map(([name, size, colour]) => {
      const item = document.createElement("li");
      const [mark, label, value] = [
        document.createElement("i"),
        document.createElement("span"),
        document.createElement("span"),
      ];
      mark.style.background = `var(${colour})`;
      label.textContent = name;
      value.textContent = `${bytes(size)}, ${percent(size)}`;
      item.append(mark, label, value);
      return item;
    }),
  );
}

/** The description of a colour profile. */
function profile(icc: Uint8Array): string {
  const view = new DataView(icc.buffer, icc.byteOffset, icc.length);
  try {
    for (let i = 0; i < view.getUint32(128); i++) {
      const at = 132 + 12 * i;
      if (view.getUint32(at) !== 0x64657363) continue; // "desc"
      const offset = view.getUint32(at + 4);
      if (view.getUint32(offset) === 0x6d6c7563) {
        const [length, where] = [view.getUint32(offset + 20), view.getUint32(offset + 24)];
        return new TextDecoder("utf-16be")
          .decode(icc.subarray(offset + where, offset + where + length))
          .replace(/\0/g, "");
      }
      return new TextDecoder("latin1").decode(icc.subarray(offset + 12, offset + 11 + view.getUint32(offset + 8)));
    }
  } catch {
    // no profile that can be read
  }
  return "unnamed";
}
