// SPDX-License-Identifier: Apache-2.0
// The indices of a level in a group of tiles: docs/prior.md, from "The condition of a level" to "The stages of a
// position". Rows are positions; what has the same step is evaluated together, a batch of rows at a time.
import { formatError } from "./errors.js";
import type { Kernels } from "./kernels.js";
import { halfEven, type LevelMaps, type Tile, tilesOf } from "./maps.js";
import type { Step } from "./orders.js";
import { type Linear, type Maps, type Prior, range } from "./prior.js";

const MARGIN = 2; // the longest tap
const BATCH = 256; // rows that are evaluated together: what they need stays in the cache

export class LevelDecoder {
  private readonly tiles: Tile[];
  private readonly c: number;
  private readonly line: number;
  /** Tables of e and of the outputs of all layers, each [tiles, side + 4, side + 4, C]. */
  private readonly known: number[];
  private readonly keys = new Map<number, { at: number; before: number; counts: number[] }>();
  private readonly state: number;
  private readonly scratch: number;
  private readonly symbols: number;
  private readonly x: number;
  private readonly u: number;
  private readonly y: number;
  private readonly t: number;
  private condition = 0;
  private rowOfCell = new Int32Array(0);

  constructor(
    private readonly prior: Prior,
    private readonly levels: LevelMaps[],
    private readonly number: number,
    corners: [number, number][],
    private readonly k: Kernels,
  ) {
    this.c = prior.config.channels;
    const { side } = prior;
    this.tiles = tilesOf(corners, levels[number] as LevelMaps, side);
    this.line = side + 2 * MARGIN;
    const rows = this.tiles.length * this.line ** 2;
    this.known = range(prior.config.layers + 1).map(() => k.zeros(2 * rows * this.c));
    const positions = side * side;
    for (const i of prior.attention.keys()) {
      const at = k.take(4 * this.c * positions * this.tiles.length);
      const most = this.tiles.length * Math.max(...prior.steps.map((step) => step.positions.length));
      this.keys.set(i, { at, before: k.take(2 * this.c * most), counts: this.tiles.map(() => 0) });
    }
    const widest = Math.max(2 * this.c, ...prior.heads.map(({ wide }) => wide), prior.expand?.wide ?? 0);
    this.x = k.take(2 * BATCH * 11 * this.c);
    this.u = k.take(4 * BATCH * widest);
    this.y = k.take(2 * BATCH * Math.max(2 * this.c, prior.outputs));
    this.t = k.take(2 * BATCH * Math.max(2 * this.c, prior.outputs));
    this.state = k.zeros(32);
    this.scratch = k.take(4 * Math.max(4097, positions));
    this.symbols = k.take(4 * BATCH * Math.max(...prior.maps.stages.map((members) => members.length)));
  }

  /** x times a matrix, rescaled and limited to low..127, to `target`. */
  private apply(linear: Linear, x: number, rows: number, shift: number, low: number, target: number): void {
    this.k.run.product(x, rows, linear.segments, 1, linear.inner, linear.wide, linear.bias, this.u);
    this.k.run.rounded(this.u, rows * linear.wide, shift, low, target);
  }

  /** x = clamp(x + clamp(outer(relu(inner(of))))), rows of `width` numbers. */
  private block(pair: [Linear, Linear], of: number, x: number, rows: number, width: number): void {
    this.apply(pair[0], of, rows, 7, 0, this.t);
    this.apply(pair[1], this.t, rows, 7, -127, this.t);
    this.k.run.added(x, this.t, rows * width, x);
  }

  /** Works out the condition of all positions. rate: the byte of the header. */
  prepare(rate: number): void {
    const { prior, k, c } = this;
    const { run } = k;
    const r = prior.ratio;
    const cells = prior.side / r;
    const line = cells + 2;
    const where: number[] = [];
    const at: [number, number][] = [];
    this.rowOfCell = new Int32Array(this.tiles.length * cells * cells).fill(-1);
    this.tiles.forEach((tile, n) => {
      for (let y = 0; y < Math.ceil(tile.height / r); y++) {
        for (let x = 0; x < Math.ceil(tile.width / r); x++) {
          this.rowOfCell[(n * cells + y) * cells + x] = where.length;
          where.push((n * line + y + 1) * line + x + 1);
          at.push([tile.top / r + y, tile.left / r + x]);
        }
      }
    });
    const rows = where.length;
    const start = this.start(rate);
    const x = k.take(2 * rows * c);
    const wide = prior.expand ? prior.expand.wide : c;
    this.condition = prior.expand ? k.take(2 * rows * wide) : x;
    const mark = k.mark;
    const table = k.zeros(2 * this.tiles.length * line * line * c);
    const index = k.int32(where);
    for (let row = 0; row < rows; row++) k.i16(x + 2 * row * c, c).set(start);
    prior.coarser.forEach((maps, j) => {
      this.addCoarse(maps, j, at, x);
    });
    run.limited(x, rows * c);
    for (const pair of prior.condBlocks) {
      run.scatter(x, index, rows, c, table);
      for (let first = 0; first < rows; first += BATCH) {
        const count = Math.min(BATCH, rows - first);
        for (let tap = 0; tap < 9; tap++) {
          const delta = (Math.floor(tap / 3) - 1) * line + (tap % 3) - 1;
          run.gather(table, index + 4 * first, count, delta, c, this.x + 2 * tap * c, 18 * c);
        }
        this.block(pair, this.x, x + 2 * first * c, count, c);
      }
    }
    if (prior.expand) {
      for (let first = 0; first < rows; first += BATCH) {
        const count = Math.min(BATCH, rows - first);
        this.apply(prior.expand, x + 2 * first * c, count, 7, -127, this.condition + 2 * first * wide);
      }
    }
    k.release(mark);
  }

  /** The base vector, with that of the rate. */
  private start(rate: number): Int16Array {
    const { base, rate: rates, config } = this.prior;
    const row = Math.floor((rate * config.rates) / 256);
    return Int16Array.from(base, (value, c) => value + (rates ? (rates[row * base.length + c] as number) : 0));
  }

  /** Adds the rows of the indices of a coarser level. */
  private addCoarse(maps: Maps, j: number, at: [number, number][], x: number): void {
    const { data, width, height } = this.levels[j] as LevelMaps;
    const r = maps.level.stride / this.prior.working;
    const size = width * height;
    const index = new Int32Array(at.length * maps.number);
    let to = 0;
    for (const [y, z] of at) {
      const phase = ((y % r) * r + (z % r)) * maps.rows;
      const from = Math.floor(y / r) * width + Math.floor(z / r);
      for (let m = 0; m < maps.number; m++) {
        index[to++] = phase + (maps.first[m] as number) + (data[m * size + from] as number);
      }
    }
    const mark = this.k.mark;
    const list = this.k.int32(index);
    this.k.run.addRows(this.prior.condCoarse[j] as number, list, at.length, maps.number, this.c, x);
    this.k.release(mark);
  }

  /** Decodes a stream into the level's maps. Stops between steps, which are few. */
  *decode(words: Uint8Array): Generator<void> {
    const { k, prior } = this;
    const copy = k.bytes(words);
    k.run.start(this.state, copy, words.length / 4);
    const mark = k.mark;
    for (const step of prior.steps) {
      this.step(step);
      k.release(mark);
      yield;
    }
    if (!k.run.complete(this.state)) {
      throw formatError("an index stream is longer than its indices, or another coding of them");
    }
  }

  private step(step: Step): void {
    const { k, prior, c } = this;
    const { side, ratio: r } = prior;
    const cells = side / r;
    const tileOf: number[] = [];
    const whereOf: number[] = [];
    const condOf: number[] = [];
    const targetOf: number[] = [];
    const whole = this.levels[this.number] as LevelMaps;
    for (const position of step.positions) {
      const [y, x] = [Math.floor(position / side), position % side];
      const cell = Math.floor(y / r) * cells + Math.floor(x / r);
      const within = (y % r) * r + (x % r);
      for (let n = 0; n < this.tiles.length; n++) {
        const tile = this.tiles[n] as Tile;
        if (y >= tile.height || x >= tile.width) continue;
        tileOf.push(n);
        whereOf.push((n * this.line + y + MARGIN) * this.line + x + MARGIN);
        condOf.push((this.rowOfCell[n * cells * cells + cell] as number) * r * r + within);
        targetOf.push((tile.top + y) * whole.width + tile.left + x);
      }
    }
    const rows = tileOf.length;
    if (!rows) return;
    const where = k.int32(whereOf);
    const cond = k.int32(condOf);
    const h = k.take(2 * rows * prior.outputs);
    const byTile = this.keys.size ? this.tiles.map((_, n) => range(rows).filter((row) => tileOf[row] === n)) : [];
    for (let first = 0; first < rows; first += BATCH) {
      const count = Math.min(BATCH, rows - first);
      this.trunk(step, first, count, where, cond, h + 2 * first * prior.outputs, byTile);
    }
    const indices = new Uint16Array(rows * prior.maps.number);
    this.stages(rows, h, indices);
    const size = whole.width * whole.height;
    for (let row = 0; row < rows; row++) {
      for (let m = 0; m < prior.maps.number; m++) {
        whole.data[m * size + (targetOf[row] as number)] = indices[row * prior.maps.number + m] as number;
      }
    }
    this.remember(rows, where, indices, byTile, c);
  }

  /** The trunk of some rows, up to what enters the output stack. */
  private trunk(
    step: Step,
    first: number,
    rows: number,
    where: number,
    cond: number,
    out: number,
    byTile: number[][],
  ): void {
    const { k, prior, c } = this;
    const { run } = k;
    const mark = k.mark;
    const place = where + 4 * first;
    const condition = k.take(2 * rows * c);
    run.gather(this.condition, cond + 4 * first, rows, 0, c, condition, 2 * c);
    if (prior.step) {
      run.addRows(prior.step, k.int32(Array(rows).fill(step.number)), rows, 1, c, condition);
      run.limited(condition, rows * c);
    }
    const iota = k.int32(range(rows));
    let y = this.y;
    prior.layers.forEach((layer, i) => {
      const conv = layer.conv[step.reach] as number[];
      const inputs = step.taps.map(({ dy, dx, row }) => ({ delta: dy * this.line + dx, segment: conv[row] as number }));
      if (i) inputs.push({ delta: 0, segment: conv[step.all] as number });
      const stride = 2 * c * (inputs.length + 1);
      inputs.forEach(({ delta }, column) => {
        run.gather(this.known[i] as number, place, rows, delta, c, this.x + 2 * c * column, stride);
      });
      run.gather(condition, iota, rows, 0, c, this.x + 2 * c * inputs.length, stride);
      const segments = k.int32([...inputs.map(({ segment }) => segment), layer.cond]);
      run.product(this.x, rows, segments, inputs.length + 1, c, 2 * c, layer.bias, this.u);
      run.gate(this.u, rows, c, this.t);
      const before = y;
      y = k.take(2 * rows * c);
      this.apply(layer.project, this.t, rows, 9, -127, y);
      if (i) run.added(y, before, rows * c, y);
      if (prior.attention.has(i)) this.attend(i, y, first, rows, byTile);
      run.scatter(y, place, rows, c, this.known[i + 1] as number);
    });
    if (prior.enter) this.apply(prior.enter, y, rows, 7, -127, out);
    else run.gather(y, iota, rows, 0, c, out, 2 * c);
    k.release(mark);
  }

  /** y = clamp(y + attention), and keeps y as it was. */
  private attend(i: number, y: number, first: number, rows: number, byTile: number[][]): void {
    const { k, prior, c } = this;
    const { run } = k;
    const { query, out } = prior.attention.get(i) as { query: Linear; out: Linear };
    const memory = this.keys.get(i) as { at: number; before: number; counts: number[] };
    k.u8(memory.before + 2 * first * c, 2 * rows * c).set(k.u8(y, 2 * rows * c));
    const queries = k.take(2 * rows * c);
    this.apply(query, y, rows, 7, -127, queries);
    const mean = k.take(2 * rows * c);
    const positions = prior.side ** 2;
    const shift = 6 + halfEven(Math.log2(c / prior.config.heads) / 2);
    byTile.forEach((all, n) => {
      const list = all.filter((row) => row >= first && row < first + rows).map((row) => row - first);
      if (!list.length) return;
      const mark = k.mark;
      const index = k.int32(list);
      const some = k.take(2 * list.length * c);
      const means = k.take(2 * list.length * c);
      run.gather(queries, index, list.length, 0, c, some, 2 * c);
      run.attend(
        some,
        list.length,
        memory.at + 4 * c * positions * n,
        memory.counts[n] as number,
        c,
        prior.config.heads,
        shift,
        prior.exponential,
        this.scratch,
        means,
      );
      run.scatter(means, index, list.length, c, mean);
      k.release(mark);
    });
    this.apply(out, mean, rows, 7, -127, this.t);
    run.added(y, this.t, rows * c, y);
  }

  /** Decodes the indices of all stages, as long as rows are live. */
  private stages(rows: number, h: number, indices: Uint16Array): void {
    const { k, prior } = this;
    const { run } = k;
    const { maps, outputs: o } = prior;
    let live = Int32Array.from(range(rows));
    let extra = h;
    maps.stages.forEach((members, s) => {
      if (!live.length) return;
      const head = prior.heads[s] as Linear;
      const codes = maps.sizes[members[0] as number] as number;
      const kept: number[] = [];
      const told: number[] = [];
      for (let first = 0; first < live.length; first += BATCH) {
        const count = Math.min(BATCH, live.length - first);
        k.u8(this.y, 2 * count * o).set(k.u8(extra + 2 * first * o, 2 * count * o));
        if (s) {
          const mark = k.mark;
          run.addRows(prior.stage, k.int32(Array(count).fill(s - 1)), count, 1, o, this.y);
          run.limited(this.y, count * o);
          k.release(mark);
        }
        for (const pair of prior.outBlocks) this.block(pair, this.y, this.y, count, o);
        run.product(this.y, count, head.segments, 1, o, head.wide, head.bias, this.u);
        const damage = run.decode(
          this.state,
          this.u,
          count,
          members.length,
          codes,
          4 * head.wide,
          prior.table,
          this.scratch,
          this.symbols,
        );
        if (damage)
          throw formatError(damage === 1 ? "no encoder wrote this index stream" : "an index stream is too short");
        const symbols = k.i32(this.symbols, count * members.length);
        for (let row = 0; row < count; row++) {
          const to = (live[first + row] as number) * maps.number + (members[0] as number);
          let any = !maps.level.stop;
          for (let g = 0; g < members.length; g++) {
            const symbol = symbols[row * members.length + g] as number;
            indices[to + g] = symbol;
            if (symbol) any = true;
          }
          if (!any || s + 1 === maps.stages.length) continue;
          kept.push(first + row);
          members.forEach((m, g) => {
            told.push((maps.first[m] as number) + (symbols[row * members.length + g] as number));
          });
        }
      }
      const next = k.take(2 * kept.length * o);
      run.gather(extra, k.int32(kept), kept.length, 0, o, next, 2 * o);
      if (s + 1 < maps.stages.length) {
        run.addRows(prior.told, k.int32(told), kept.length, members.length, o, next);
      }
      live = Int32Array.from(kept, (row) => live[row] as number);
      extra = next;
    });
  }

  /** Lets later steps see these rows and their indices. */
  private remember(rows: number, where: number, indices: Uint16Array, byTile: number[][], c: number): void {
    const { k, prior } = this;
    const { run } = k;
    const count = prior.maps.number;
    const index = new Int32Array(indices.length);
    for (let i = 0; i < index.length; i++) {
      index[i] = (indices[i] as number) + (prior.maps.first[i % count] as number);
    }
    const e = k.zeros(2 * rows * c);
    run.addRows(prior.embed, k.int32(index), rows, count, c, e);
    run.limited(e, rows * c);
    run.scatter(e, where, rows, c, this.known[0] as number);
    for (const [i, memory] of this.keys) {
      const { keyValue } = prior.attention.get(i) as { keyValue: Linear };
      const both = k.take(4 * rows * c);
      const made = k.take(4 * rows * c);
      const iota = k.int32(range(rows));
      run.gather(memory.before, iota, rows, 0, c, both, 4 * c);
      run.gather(e, iota, rows, 0, c, both + 2 * c, 4 * c);
      for (let first = 0; first < rows; first += BATCH) {
        const some = Math.min(BATCH, rows - first);
        this.apply(keyValue, both + 4 * first * c, some, 7, -127, made + 4 * first * c);
      }
      byTile.forEach((list, n) => {
        const known = memory.counts[n] as number;
        const to = memory.at + 4 * c * (prior.side ** 2 * n + known);
        run.gather(made, k.int32(list), list.length, 0, 2 * c, to, 4 * c);
        memory.counts[n] = known + list.length;
      });
    }
  }
}
