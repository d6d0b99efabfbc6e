// SPDX-License-Identifier: Apache-2.0
// The index maps of a level, and the tiles that they are cut into.
import type { Maps } from "./prior.js";

/** The maps of a whole picture at one level, [maps, height, width]. */
export interface LevelMaps {
  maps: Maps;
  width: number;
  height: number;
  data: Uint16Array;
}

/** A tile of a group: the corner of its positions in the level's maps, and how many of them are inside. */
export interface Tile {
  left: number;
  top: number;
  width: number;
  height: number;
}

/** The tiles of a group, from their rows and columns; side: positions of a whole tile along an axis. */
export function tilesOf(corners: [number, number][], { width, height }: LevelMaps, side: number): Tile[] {
  return corners.map(([row, column]) => {
    const [left, top] = [column * side, row * side];
    return { left, top, width: Math.min(side, width - left), height: Math.min(side, height - top) };
  });
}

/** The nearest integer, a half to the even one. */
export function halfEven(x: number): number {
  const low = Math.floor(x);
  if (x - low !== 0.5) return Math.round(x);
  return low % 2 ? low + 1 : low;
}
