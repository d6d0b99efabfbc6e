// SPDX-License-Identifier: Apache-2.0
// The first directory of an EXIF block: how the picture is to be turned, and a few tags that people look for.

const NAMES: Record<number, string> = {
  270: "Description",
  271: "Maker",
  272: "Camera",
  274: "Orientation",
  305: "Software",
  306: "Date",
  315: "Artist",
  33432: "Copyright",
};
const ORIENTATION = 274;
const SIZES: Record<number, number> = { 2: 1, 3: 2, 4: 4 };

interface Entry {
  tag: number;
  kind: number;
  count: number;
  /** Of the value in the block. */
  at: number;
}

/** Names and values of tags; none where the block is no EXIF. */
export function tags(block: Uint8Array): [string, string][] {
  const { view, little, entries } = directory(block);
  return entries.flatMap(({ tag, kind, count, at }): [string, string][] => {
    const name = NAMES[tag];
    if (!name) return [];
    if (kind !== 2) return [[name, String(kind === 3 ? view.getUint16(at, little) : view.getUint32(at, little))]];
    const bytes = new Uint8Array(view.buffer, view.byteOffset + at, count);
    const text = new TextDecoder().decode(bytes).replace(/\0.*$/s, "").trim();
    return text ? [[name, text]] : [];
  });
}

/** How the picture is to be turned, 1 (not at all) to 8. */
export function orientation(block: Uint8Array | undefined): number {
  const { view, little, entries } = directory(block);
  const entry = entries.find(({ tag, kind }) => tag === ORIENTATION && kind === 3);
  const value = entry ? view.getUint16(entry.at, little) : 1;
  return value >= 1 && value <= 8 ? value : 1;
}

/** The block of a picture that has been turned: a copy, which says so. It begins with the TIFF header. */
export function upright(block: Uint8Array): Uint8Array {
  const copy = block.slice(prefix(block));
  const { view, little, entries } = directory(copy);
  for (const { tag, kind, at } of entries) if (tag === ORIENTATION && kind === 3) view.setUint16(at, 1, little);
  return copy;
}

/** "Exif\0\0", which some writers put in front. */
function prefix(block: Uint8Array): number {
  return block[0] === 0x45 && block[1] === 0x78 ? 6 : 0;
}

/** Entries whose values lie in the block; those before the first that points outside of it. */
function directory(block: Uint8Array = new Uint8Array()): { view: DataView; little: boolean; entries: Entry[] } {
  const start = Math.min(prefix(block), block.length);
  const view = new DataView(block.buffer, block.byteOffset + start, block.length - start);
  const entries: Entry[] = [];
  let little = false;
  try {
    little = view.getUint16(0) === 0x4949;
    const first = view.getUint32(4, little);
    const count = view.getUint16(first, little);
    for (let i = 0; i < count; i++) {
      const entry = first + 2 + 12 * i;
      const kind = view.getUint16(entry + 2, little);
      const values = view.getUint32(entry + 4, little);
      const bytes = values * (SIZES[kind] ?? 0);
      const at = bytes > 4 ? view.getUint32(entry + 8, little) : entry + 8;
      if (bytes && at + Math.max(bytes, SIZES[kind] as number) <= view.byteLength) {
        entries.push({ tag: view.getUint16(entry, little), kind, count: values, at });
      }
    }
  } catch {
    // a directory that points outside of the block: what was read before stays
  }
  return { view, little, entries };
}
