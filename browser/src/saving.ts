// SPDX-License-Identifier: Apache-2.0
// A `.vq2` file as a PNG file, which every program reads.
import { type Decoder, sharedDecoder } from "./decoder.js";
import { upright } from "./exif.js";
import { type Info, info } from "./info.js";
import { type PngMetadata, png } from "./png.js";

/**
 * A PNG file of a picture: turned as its EXIF says, in the colours of its profile, with profile, EXIF and XMP, which then
 * say that nothing is to be turned. Rejects as `decode` does.
 */
export async function toPng(
  bytes: Uint8Array | ArrayBuffer,
  { decoder, signal }: { decoder?: Decoder | undefined; signal?: AbortSignal } = {},
): Promise<Blob> {
  const facts = await info(new Uint8Array(bytes));
  const image = await (decoder ?? sharedDecoder()).decode(bytes, {
    colorSpaceConversion: "none",
    ...(signal && { signal }),
  });
  return png(image, metadataOf(facts));
}

/** What a file says beside its pixels, for these when they have been turned. */
export function metadataOf({ icc, exif, xmp }: Info): PngMetadata {
  return {
    icc,
    exif: exif && upright(exif),
    xmp: xmp?.replace(/(tiff:Orientation\s*(?:=\s*["']|>\s*))[2-8]/g, "$11"),
  };
}
