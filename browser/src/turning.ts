// SPDX-License-Identifier: Apache-2.0
// Orientations of EXIF, 1 to 8: 5 to 8 swap the axes.
import type { Raster, Region } from "./engine.js";

const LEFT_RIGHT = [2, 3, 7, 8]; // of the stored picture
const UP_DOWN = [3, 4, 6, 7];

/** Whether width and height change places. */
export function swaps(orientation: number): boolean {
  return orientation >= 5;
}

/** A picture as it is to be seen. */
export function turned(image: Raster, orientation: number): Raster {
  if (orientation === 1) return image;
  const { width: w, height: h } = image;
  const [width, height] = swaps(orientation) ? [h, w] : [w, h];
  const data = new Uint8ClampedArray(image.data.length);
  const [from, to] = [new Uint32Array(image.data.buffer), new Uint32Array(data.buffer)];
  // Steps in the stored picture for a step to the right and one down in the turned one.
  const [across, down] = [LEFT_RIGHT.includes(orientation) ? -1 : 1, UP_DOWN.includes(orientation) ? -w : w];
  const start = (across < 0 ? w - 1 : 0) + (down < 0 ? w * (h - 1) : 0);
  const [right, below] = swaps(orientation) ? [down, across] : [across, down];
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0, source = start + y * below; x < width; x++, source += right) to[at++] = from[source] as number;
  }
  return { ...image, width, height, data };
}

/** Where a region of the turned picture lies in the stored one of width x height pixels. */
export function unturned(region: Region, orientation: number, width: number, height: number): Region {
  const swapped = swaps(orientation);
  const [w, h] = swapped ? [region.height, region.width] : [region.width, region.height];
  const [x, y] = swapped ? [region.y, region.x] : [region.x, region.y];
  return {
    x: LEFT_RIGHT.includes(orientation) ? width - x - w : x,
    y: UP_DOWN.includes(orientation) ? height - y - h : y,
    width: w,
    height: h,
  };
}
