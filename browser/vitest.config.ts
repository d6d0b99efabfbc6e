// SPDX-License-Identifier: Apache-2.0
import { defineConfig } from "vitest/config";

export default defineConfig({ test: { fileParallelism: false, testTimeout: 60_000, include: ["tests/*.test.ts"] } });
