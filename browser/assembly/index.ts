// SPDX-License-Identifier: Apache-2.0
export * from "./kernels";
export * from "./ranges";
