// SPDX-License-Identifier: Apache-2.0
// <script type="module" src="img.js"></script> shows every <img src="x.vq2"> of a page.
import { upgradeImages } from "../src/index.js";

upgradeImages();
