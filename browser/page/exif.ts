// SPDX-License-Identifier: Apache-2.0
// A few tags of an EXIF block that people look for.

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
const SIZES: Record<number, number> = { 2: 1, 3: 2, 4: 4 };

/** Names and values of the tags of the first directory; none where the block is no EXIF. */
export function tags(block: Uint8Array): [string, string][] {
  const start = block[0] === 0x45 && block[1] === 0x78 ? 6 : 0; // "Exif\0\0"
  const view = new DataView(block.buffer, block.byteOffset + start, block.length - start);
  const found: [string, string][] = [];
  try {
    const little = view.getUint16(0) === 0x4949;
    const first = view.getUint32(4, little);
    const count = view.getUint16(first, little);
    for (let i = 0; i < count; i++) {
      const at = first + 2 + 12 * i;
      const name = NAMES[view.getUint16(at, little)];
      const kind = view.getUint16(at + 2, little);
      const length = view.getUint32(at + 4, little);
      if (!name || !SIZES[kind]) continue;
      const where = length * (SIZES[kind] as number) > 4 ? view.getUint32(at + 8, little) : at + 8;
      if (kind === 2) {
        const bytes = new Uint8Array(view.buffer, view.byteOffset + where, Math.min(length, view.byteLength - where));
        const text = new TextDecoder().decode(bytes).replace(/\0.*$/s, "").trim();
        if (text) found.push([name, text]);
      } else {
        found.push([name, String(kind === 3 ? view.getUint16(where, little) : view.getUint32(where, little))]);
      }
    }
  } catch {
    // a directory that points outside of the block: what was read before stays
  }
  return found;
}
