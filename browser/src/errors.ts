// SPDX-License-Identifier: Apache-2.0
/** The errors that this package throws on purpose. `name` survives the way out of a worker. */
export type ErrorName = "FormatError" | "ModelError" | "ImageError" | "ExactnessError";

export class Vq2Error extends Error {
  constructor(name: ErrorName, message: string) {
    super(message);
    this.name = name;
  }
}

/** The bytes are no `.vq2` file, are damaged, or break a limit of the format. */
export const formatError = (message: string): Vq2Error => new Vq2Error("FormatError", message);
/** The model that a file needs is missing, or is not what it says. */
export const modelError = (message: string): Vq2Error => new Vq2Error("ModelError", message);
/** The picture would cost more than the limits, or is not there. */
export const imageError = (message: string): Vq2Error => new Vq2Error("ImageError", message);
/** This machine does not compute the prior exactly. */
export const exactnessError = (message: string): Vq2Error => new Vq2Error("ExactnessError", message);
