// SPDX-License-Identifier: Apache-2.0
// PNG and WebP inside a file: the alpha channel, and pictures without loss. The browser decodes them.
import { Bytes } from "./bytes.js";
import type { Header } from "./container.js";
import { formatError } from "./errors.js";
import { readPng } from "./readpng.js";

const PNG = [137, 80, 78, 71, 13, 10, 26, 10];
const COLOURS = { L: 0, RGB: 2, LA: 4, RGBA: 6 };

/** The alpha channel of a file, one byte a pixel. */
export async function alpha(payload: Uint8Array, { width, height }: Header): Promise<Uint8Array> {
  checkPng(payload, width, height, "L");
  const pixels = await decoded(payload, "image/png", width, height);
  return Uint8Array.from({ length: width * height }, (_, i) => pixels[4 * i] as number);
}

/** The pixels of a lossless file, RGBA. */
export async function lossless(payload: Uint8Array, { width, height, mode }: Header): Promise<Uint8ClampedArray> {
  let pixels: Uint8ClampedArray;
  if (payload[0] === 0x2f) {
    checkVp8l(payload, width, height);
    pixels = await byVp8l(payload, width, height, mode.endsWith("A"));
  } else {
    checkPng(payload, width, height, mode);
    pixels = (await ownReader(payload)) ?? (await decoded(payload, "image/png", width, height));
  }
  if (!mode.endsWith("A")) for (let i = 3; i < pixels.length; i += 4) pixels[i] = 255;
  return pixels;
}

async function ownReader(payload: Uint8Array): Promise<Uint8ClampedArray | undefined> {
  try {
    return await readPng(payload);
  } catch (error) {
    throw formatError(`a picture inside cannot be read: ${(error as Error).message}`);
  }
}

/**
 * Browsers multiply colours by alpha, in 8 bits: little is left of them under a low alpha. A canvas of half floats keeps
 * them, but where alpha is 0. Without such a canvas (`colorType` is not known) it is one of 8 bits.
 */
async function byVp8l(payload: Uint8Array, width: number, height: number, alpha: boolean): Promise<Uint8ClampedArray> {
  if (!alpha) return decoded(framed(payload), "image/webp", width, height);
  return byCanvas(framed(payload), "image/webp", width, height).catch((error) => {
    throw formatError(`a picture inside cannot be read: ${(error as Error).message}`);
  });
}

/** The sizes are compared before anything is allocated for them. */
function checkPng(payload: Uint8Array, width: number, height: number, mode: keyof typeof COLOURS): void {
  if (payload.length < 33 || PNG.some((byte, i) => payload[i] !== byte))
    throw formatError("a picture inside is no PNG");
  const view = new DataView(payload.buffer, payload.byteOffset, payload.length);
  const [across, down] = [view.getUint32(16), view.getUint32(20)];
  if (across !== width || down !== height)
    throw formatError(`a picture inside is ${across}x${down}, not ${width}x${height}`);
  // Fewer bits than 8 are greyscale of few levels, or a palette, which the modes of the header do not have.
  if (payload[25] !== COLOURS[mode] || payload[24] !== 8) throw formatError("a picture inside is of another mode");
}

function checkVp8l(payload: Uint8Array, width: number, height: number): void {
  const head = new Bytes(payload);
  head.take(1);
  const bits = head.uint32();
  const [across, down] = [(bits & 0x3fff) + 1, ((bits >>> 14) & 0x3fff) + 1];
  if (across !== width || down !== height)
    throw formatError(`a picture inside is ${across}x${down}, not ${width}x${height}`);
}

/** A whole WebP file around the bitstream. */
function framed(payload: Uint8Array): Uint8Array {
  const odd = payload.length % 2;
  const file = new Uint8Array(20 + payload.length + odd);
  const view = new DataView(file.buffer);
  file.set(new TextEncoder().encode("RIFF    WEBPVP8L"));
  view.setUint32(4, 12 + payload.length + odd, true);
  view.setUint32(16, payload.length, true);
  file.set(payload, 20);
  return file;
}

/** RGBA, not multiplied by alpha. */
async function decoded(file: Uint8Array, type: string, width: number, height: number): Promise<Uint8ClampedArray> {
  try {
    const straight = await byImageDecoder(file, type, width, height);
    if (straight) return straight;
    return await byCanvas(file, type, width, height);
  } catch (error) {
    throw formatError(`a picture inside cannot be read: ${(error as Error).message}`);
  }
}

async function byCanvas(file: Uint8Array, type: string, width: number, height: number): Promise<Uint8ClampedArray> {
  const options: ImageBitmapOptions = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
  const bitmap = await createImageBitmap(new Blob([file as BlobPart], { type }), options);
  const settings: CanvasRenderingContext2DSettings & { colorType: string } = { colorType: "float16" };
  const context = new OffscreenCanvas(width, height).getContext("2d", settings);
  if (!context) throw new Error("there is no canvas");
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return context.getImageData(0, 0, width, height).data;
}

interface Frame {
  codedWidth: number;
  codedHeight: number;
  format: string | null;
  copyTo(target: Uint8ClampedArray, options: { format: string }): Promise<unknown>;
  close(): void;
}

interface ImageDecoding {
  decode(options: { completeFramesOnly: boolean }): Promise<{ image: Frame }>;
  close(): void;
}

/** With WebCodecs: no canvas in between. */
async function byImageDecoder(
  file: Uint8Array,
  type: string,
  width: number,
  height: number,
): Promise<Uint8ClampedArray | undefined> {
  const Decoder = (globalThis as { ImageDecoder?: new (options: object) => ImageDecoding }).ImageDecoder;
  if (!Decoder) return undefined;
  const decoder = new Decoder({ data: file, type, colorSpaceConversion: "none" });
  try {
    const { image } = await decoder.decode({ completeFramesOnly: true });
    const pixels = new Uint8ClampedArray(4 * width * height);
    if (image.codedWidth !== width || image.codedHeight !== height) throw new Error("it has another size");
    await image.copyTo(pixels, { format: "RGBA" });
    image.close();
    return pixels;
  } finally {
    decoder.close();
  }
}
