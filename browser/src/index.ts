// SPDX-License-Identifier: Apache-2.0
// Decodes `.vq2` files in a Web Worker.

export type { Colours } from "./colours.js";
export { type DecodeOptions, Decoder, type DecoderOptions, decode, type IndexOptions, indices } from "./decoder.js";
export type { Phase, Region } from "./engine.js";
export type { ErrorName } from "./errors.js";
export type { IndexMaps } from "./indices.js";
export { type Info, info } from "./info.js";
export { type PngMetadata, png } from "./png.js";
export { toPng } from "./saving.js";
export { upgradeImages } from "./upgrade.js";
export type { Backend } from "./worker.js";
