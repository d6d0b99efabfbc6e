// SPDX-License-Identifier: Apache-2.0
// ICC profiles. Those of sRGB and Display P3 need no conversion; the browser's colour management knows all others.
import type { Raster } from "./engine.js";
import { png } from "./png.js";

/** What the numbers of a picture mean. "other" is whatever its profile says. */
export type Colours = "srgb" | "display-p3" | "other";

// Columns of red, green and blue in XYZ, adapted to D50 as profiles have them.
const PRIMARIES: [Colours, number[]][] = [
  ["srgb", [0.4361, 0.2225, 0.0139, 0.3851, 0.7169, 0.0971, 0.1431, 0.0606, 0.7141]],
  ["display-p3", [0.5151, 0.2412, -0.0011, 0.292, 0.6922, 0.0419, 0.1571, 0.0666, 0.7841]],
];
const NEAR = 0.003;
const NEAR_CURVE = 1.5 / 255; // of the numbers of a pixel

/** The colours of a profile; none is sRGB, as browsers have it. */
export function coloursOf(icc: Uint8Array | undefined): Colours {
  if (!icc) return "srgb";
  try {
    const view = new DataView(icc.buffer, icc.byteOffset, icc.length);
    const tags = new Map<string, number>();
    for (let i = 0; i < view.getUint32(128); i++) {
      tags.set(letters(icc, 132 + 12 * i), view.getUint32(136 + 12 * i));
    }
    if (tags.has("A2B0")) return "other"; // a table, which readers prefer to the matrix
    const curves = (...names: string[]) => names.every((name) => isCurveOfSrgb(icc, view, tags.get(name)));
    if (letters(icc, 16) === "GRAY") return curves("kTRC") ? "srgb" : "other";
    if (letters(icc, 16) !== "RGB " || !curves("rTRC", "gTRC", "bTRC")) return "other";
    const columns = ["rXYZ", "gXYZ", "bXYZ"].flatMap((name) => {
      const at = tags.get(name) as number;
      return [8, 12, 16].map((offset) => view.getInt32(at + offset) / 65536);
    });
    const match = PRIMARIES.find(([, all]) => all.every((x, i) => Math.abs(x - (columns[i] as number)) < NEAR));
    return match?.[0] ?? "other";
  } catch {
    return "other"; // damaged: the browser decides
  }
}

function letters(icc: Uint8Array, at: number): string {
  return String.fromCharCode(...icc.subarray(at, at + 4));
}

/** Whether a curve, from numbers of a pixel to light, is the one of sRGB to about a level of 255. */
function isCurveOfSrgb(icc: Uint8Array, view: DataView, at: number | undefined): boolean {
  if (at === undefined) return false;
  const light = curve(icc, view, at);
  for (let i = 1; i < 16; i++) {
    const y = light(i / 16);
    const x = y <= 0.0031308 ? 12.92 * y : 1.055 * y ** (1 / 2.4) - 0.055;
    if (!(Math.abs(x - i / 16) < NEAR_CURVE)) return false;
  }
  return true;
}

/** A tag of type curv or para, as a function on 0..1. Throws where it is none. */
function curve(icc: Uint8Array, view: DataView, at: number): (x: number) => number {
  const kind = letters(icc, at);
  if (kind === "curv") {
    const count = view.getUint32(at + 8);
    if (!count) return (x) => x;
    if (count === 1) return (x) => x ** (view.getUint16(at + 12) / 256);
    const value = (i: number) => view.getUint16(at + 12 + 2 * i) / 65535;
    return (x) => {
      const position = x * (count - 1);
      const below = Math.min(Math.floor(position), count - 2);
      return value(below) + (position - below) * (value(below + 1) - value(below));
    };
  }
  if (kind !== "para") throw new TypeError("no curve");
  const form = view.getUint16(at + 8);
  const number = [1, 3, 4, 5, 7][form] as number;
  const [g = 1, a = 1, b = 0, c = 0, d = 0, e = 0, f = 0] = Array.from(
    { length: number },
    (_, i) => view.getInt32(at + 12 + 4 * i) / 65536,
  );
  if (form === 0) return (x) => x ** g;
  if (form === 1) return (x) => (x >= -b / a ? (a * x + b) ** g : 0);
  if (form === 2) return (x) => (x >= -b / a ? (a * x + b) ** g : 0) + c;
  return (x) => (x >= d ? (a * x + b) ** g + e : c * x + f);
}

/** A picture in colours that a canvas has: sRGB, or Display P3 where the browser has that. */
export async function displayed(image: Raster, icc: Uint8Array | undefined): Promise<Raster> {
  const colours = coloursOf(icc);
  if (!icc || colours === "srgb") return image;
  const wide = hasWideCanvas() && letters(icc, 16) !== "GRAY";
  if (colours === "display-p3" && wide) return { ...image, colorSpace: colours };
  const opaque = image.data.slice();
  for (let i = 3; i < opaque.length; i += 4) opaque[i] = 255; // a canvas would round colours under an alpha
  const bitmap = await createImageBitmap(await png({ ...image, data: opaque }, { icc }));
  const colorSpace = wide ? "display-p3" : "srgb";
  const context = new OffscreenCanvas(image.width, image.height).getContext("2d", { colorSpace });
  if (!context) return image;
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const { data } = context.getImageData(0, 0, image.width, image.height, { colorSpace });
  for (let i = 3; i < data.length; i += 4) data[i] = image.data[i] as number;
  return { ...image, data, colorSpace };
}

function hasWideCanvas(): boolean {
  try {
    return new ImageData(1, 1, { colorSpace: "display-p3" }).colorSpace === "display-p3";
  } catch {
    return false;
  }
}
