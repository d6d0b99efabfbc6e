// SPDX-License-Identifier: Apache-2.0
// The index maps of a picture: docs/format.md, "Index streams".
import type { Container, Header } from "./container.js";
import { formatError, modelError } from "./errors.js";
import type { Kernels } from "./kernels.js";
import { LevelDecoder } from "./level.js";
import type { LevelMaps } from "./maps.js";
import { tiles } from "./orders.js";
import { Prior } from "./prior.js";
import type { ModelConfig, Weights } from "./weights.js";

/** The priors of a model, in the memory of the kernels. */
export class Priors {
  readonly levels: Prior[];
  readonly config: ModelConfig;

  constructor(
    readonly kernels: Kernels,
    weights: Weights,
    /** 8 hexadecimal digits. */
    readonly identity: string,
  ) {
    this.config = weights.config;
    this.levels = weights.config.priors.map((_, number) => new Prior(kernels, weights, number));
  }
}

/** The indices of a level: `maps` planes of width x height, one after the other, a stage or a group of a stage each. */
export interface IndexMaps {
  /** Pixels of the picture per index, along each axis. */
  stride: number;
  maps: number;
  width: number;
  height: number;
  data: Uint16Array<ArrayBuffer>;
}

export function indexMaps(levels: LevelMaps[]): IndexMaps[] {
  return levels.map(({ maps: { level, number }, width, height, data }) => ({
    stride: level.stride,
    maps: number,
    width,
    height,
    data: new Uint16Array(data),
  }));
}

/** What of the index maps to decode, and what to do between two steps. */
export interface Wanted {
  /** Levels, coarsest first; all by default. */
  levels?: number;
  /** Maps that this gave before, of so many levels, which are not decoded again. */
  start?: { maps: LevelMaps[]; levels: number };
  /** Groups of tiles; all by default. */
  groups?: (tiles: [number, number][]) => boolean;
  /** Called between steps with what is done, 0 to 1; may throw, to stop. */
  pause?: (done: number) => void | Promise<void>;
}

/** Throws unless a file is one of this model, with enough words for its positions. */
export function check(priors: Priors, file: Container): void {
  const { header, streams } = file;
  if (header.model !== priors.identity) throw modelError(`the file needs model ${header.model}`);
  const count = priors.levels.length;
  const grouped = groupsOf(header);
  if (header.tileSize !== priors.config.tile_size || streams.length !== grouped.length * count) {
    throw formatError("tiles and streams of the file do not fit its model");
  }
  const maps = empty(priors, header, 0);
  streams.forEach((stream, number) => {
    const level = number % count;
    const { side, leastBits } = priors.levels[level] as Prior;
    const { width, height } = maps[level] as LevelMaps;
    let positions = 0;
    for (const [row, column] of grouped[Math.floor(number / count)] as [number, number][]) {
      positions += Math.min(side, width - column * side) * Math.min(side, height - row * side);
    }
    if (stream.length / 4 < Math.ceil((positions * leastBits) / 32)) {
      throw formatError(`index stream ${number} is too short for its ${positions} positions`);
    }
  });
}

/** The index maps of a file, coarsest level first; zeros where nothing was wanted. */
export async function decodeIndices(priors: Priors, file: Container, wanted: Wanted = {}): Promise<LevelMaps[]> {
  check(priors, file);
  const { kernels } = priors;
  const levels = Math.min(wanted.levels ?? priors.levels.length, priors.levels.length);
  const grouped = groupsOf(file.header);
  const chosen = grouped
    .map((group, number) => ({ group, number }))
    .filter(({ group }) => wanted.groups?.(group) ?? true);
  const maps = empty(priors, file.header, levels);
  const first = wanted.start?.levels ?? 0;
  wanted.start?.maps.slice(0, first).forEach((level, i) => {
    maps[i] = level;
  });
  const mark = kernels.mark;
  // A level's weight in the progress: its positions.
  const weights = maps.slice(first, levels).map(({ width, height }) => width * height);
  const total = weights.reduce((a, b) => a + b, 0) * Math.max(1, chosen.length);
  let done = 0;
  try {
    for (const { group, number } of chosen) {
      for (let level = first; level < levels; level++) {
        const prior = priors.levels[level] as Prior;
        const decoder = new LevelDecoder(prior, maps, level, group, kernels);
        decoder.prepare(file.header.rate);
        const part = (weights[level - first] as number) / prior.steps.length;
        for (const _ of decoder.decode(file.streams[number * priors.levels.length + level] as Uint8Array)) {
          done += part;
          await wanted.pause?.(done / total);
        }
        kernels.release(mark);
      }
    }
  } finally {
    kernels.release(mark);
  }
  return maps;
}

function groupsOf({ width, height, tileSize, groupTiles }: Header): [number, number][][] {
  return tiles(Math.ceil(height / tileSize), Math.ceil(width / tileSize), groupTiles);
}

/** Maps of all levels, with room for the indices of so many of them. */
function empty(priors: Priors, header: Header, levels: number): LevelMaps[] {
  const coarsest = (priors.levels[0] as Prior).maps.level.stride;
  const [across, down] = [Math.ceil(header.width / coarsest), Math.ceil(header.height / coarsest)];
  return priors.levels.map(({ maps }, level) => {
    const r = coarsest / maps.level.stride;
    const [width, height] = [across * r, down * r];
    return { maps, width, height, data: new Uint16Array(level < levels ? maps.number * width * height : 0) };
  });
}
