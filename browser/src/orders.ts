// SPDX-License-Identifier: Apache-2.0
// Orders and tiles of docs/prior.md and docs/format.md.

/** Taps (dy, dx) at distance 1. */
const RING: [number, number][] = [
  [0, -1],
  [-1, 1],
  [-1, 0],
  [-1, -1],
  [0, 1],
  [1, -1],
  [1, 0],
  [1, 1],
];
const PHASE = [0, 2, 3, 1];
const BAND = 4;

/** Positions that are evaluated together. */
export interface Step {
  number: number;
  reach: number;
  /** Offsets of the taps that are seen, and where the rows of their weights begin, in units of the channels. */
  taps: { dy: number; dx: number; row: number }[];
  /** Taps that the weights have, seen or not. */
  all: number;
  /** Flat positions y * side + x, row by row. */
  positions: Int32Array;
}

function stepOf(order: string, y: number, x: number): number {
  if (order === "waves") return x + 2 * y;
  const p = PHASE[(y % 2) * 2 + (x % 2)] as number;
  return p ? p + 3 : (PHASE[((y >> 1) % 2) * 2 + ((x >> 1) % 2)] as number);
}

/** The steps of a tile of side x side positions. */
export function steps(order: string, side: number): Step[] {
  const waves = order === "waves";
  const lists = new Map<number, number[]>();
  for (let at = 0; at < side * side; at++) {
    const number = stepOf(order, Math.floor(at / side), at % side);
    const list = lists.get(number);
    if (list) list.push(at);
    else lists.set(number, [at]);
  }
  return [...lists.keys()]
    .sort((a, b) => a - b)
    .map((number) => {
      const positions = Int32Array.from(lists.get(number) as number[]);
      const reach = waves || number > 3 ? 0 : 1;
      const ring = waves ? RING.slice(0, 4) : RING;
      // Whether a tap has a smaller step is the same for all positions of a step: look at one, moved off the edges.
      const y = Math.floor((positions[0] as number) / side) + 8;
      const x = ((positions[0] as number) % side) + 8;
      const taps = ring
        .map(([dy, dx], row) => ({ dy: dy * (reach + 1), dx: dx * (reach + 1), row }))
        .filter(({ dy, dx }) => waves || stepOf(order, y + dy, x + dx) < number);
      return { number, reach, taps, all: ring.length, positions };
    });
}

/** The tiles of a grid in the order of a file, as [row, column], group after group. */
export function tiles(rows: number, columns: number, perGroup: number): [number, number][][] {
  const listed: [number, number][] = [];
  for (let top = 0; top < rows; top += BAND) {
    for (let column = 0; column < columns; column++) {
      for (let row = top; row < Math.min(top + BAND, rows); row++) listed.push([row, column]);
    }
  }
  const result: [number, number][][] = [];
  for (let first = 0; first < listed.length; first += perGroup) {
    result.push(listed.slice(first, first + perGroup).sort((a, b) => a[0] - b[0] || a[1] - b[1]));
  }
  return result;
}
