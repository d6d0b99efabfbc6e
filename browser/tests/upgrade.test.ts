// SPDX-License-Identifier: Apache-2.0
// Images of a page by the one script line, in Chromium: as if the browser knew the format.
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { Page } from "playwright-core";
import { describe, expect, it } from "vitest";
import { CHROMIUM, DIST, visit } from "./server.js";

const ready = CHROMIUM && existsSync(join(DIST, "test/shown.json")) && existsSync(join(DIST, "models/manifest.json"));
const CAT = "/golden/vq2-light/cat-300x280.vq2";
const CUP = "/golden/vq2-light/coffee-17x33.vq2";

/** Notes the events of all images of the page by their alt text: load and error as the page sees them. */
const PAGE = `<!doctype html><meta charset="utf-8"><title>upgrade</title>
<script>
  globalThis.events = [];
  globalThis.note = (image) => {
    for (const kind of ["load", "error", "vq2error"]) image.addEventListener(kind, () => events.push(image.alt + " " + kind));
    return image;
  };
  globalThis.add = (alt, attributes) => {
    const image = note(Object.assign(document.createElement("img"), { alt }, attributes));
    document.body.append(image);
    return image;
  };
</script>
<script type="module" src="/img.js"></script>
<body>
  <img alt="first" id="first" src="${CUP}" width="34" class="kept">
</body>`;

describe.runIf(ready)("images of a page", () => {
  let page: Page;

  visit(
    (opened) => {
      page = opened;
    },
    { pages: { "/upgrade.html": PAGE } },
  );

  const until = (event: string) => page.waitForFunction((text) => events.includes(text), event, { timeout: 120_000 });

  it("are shown where they stand, with their attributes", async () => {
    await page.waitForFunction(
      () => document.querySelector<HTMLImageElement>("#first")?.naturalWidth === 17,
      undefined,
      { timeout: 120_000 },
    );
    const image = await page.evaluate(() => {
      const { alt, className, width, height, dataset } = document.querySelector("#first") as HTMLImageElement;
      return [alt, className, width, height, dataset.vq2?.endsWith("coffee-17x33.vq2")];
    });
    expect(image).toEqual(["first", "kept", 34, 66, true]);
  }, 180_000);

  it("are shown when they come later, deep in the page, and no error is heard before", async () => {
    await page.evaluate((src) => {
      const outer = document.createElement("figure");
      outer.append(note(Object.assign(document.createElement("img"), { alt: "later", src })));
      document.body.append(outer);
    }, CAT);
    await until("later load");
    expect(await page.evaluate(() => events)).toEqual(["later load"]);
  }, 180_000);

  it("are turned as EXIF says", async () => {
    await page.evaluate(() => add("turned", { src: "/test/turned6.vq2" }));
    await until("turned load");
    const size = await page.evaluate(() => {
      const { naturalWidth, naturalHeight } = document.querySelector("[alt=turned]") as HTMLImageElement;
      return [naturalWidth, naturalHeight];
    });
    expect(size).toEqual([45, 77]);
  }, 180_000);

  it("keep the density of the candidate of srcset that is chosen", async () => {
    await page.evaluate(([one, two]) => add("dense", { srcset: `${two} 2x, ${one} 3x` }), [CUP, CAT]);
    await page.evaluate(([one, two]) => add("wide", { sizes: "75px", srcset: `${one} 17w, ${two} 300w` }), [CUP, CAT]);
    await until("dense load");
    await until("wide load");
    const widths = await page.evaluate(() =>
      ["dense", "wide"].map((alt) => (document.querySelector(`[alt=${alt}]`) as HTMLImageElement).naturalWidth),
    );
    expect(widths).toEqual([150, 75]);
  }, 180_000);

  it("are shown when the browser says late which candidate of srcset it chose", async () => {
    await page.route("**/*?late", async (route) => {
      await new Promise((resolve) => setTimeout(resolve, 500));
      await route.continue();
    });
    await page.evaluate((src) => add("late", { srcset: `${src}?late 2x` }), CUP);
    await until("late load");
    expect(await page.evaluate(() => events.filter((event) => event.startsWith("late ")))).toEqual(["late load"]);
  }, 180_000);

  it("are loaded when they come near, where they are lazy", async () => {
    const asked: string[] = [];
    page.on("request", (request) => asked.push(new URL(request.url()).search));
    await page.evaluate((src) => {
      const space = document.createElement("div");
      space.style.height = "9000px";
      document.body.append(space);
      add("lazy", { loading: "lazy", src: `${src}?lazy` });
      add("eager", { src: `${src}?eager` });
    }, CUP);
    await until("eager load");
    expect(asked).toContain("?eager");
    expect(asked).not.toContain("?lazy");
    await page.evaluate(() => document.querySelector("[alt=lazy]")?.scrollIntoView());
    await until("lazy load");
  }, 180_000);

  it("follow a source that changes", async () => {
    await page.evaluate((src) => {
      const image = document.querySelector("#first") as HTMLImageElement;
      image.alt = "changed";
      image.removeAttribute("width");
      note(image).src = src;
    }, CAT);
    await until("changed load");
    const width = await page.evaluate(() => (document.querySelector("#first") as HTMLImageElement).naturalWidth);
    expect(width).toBe(300);
    await page.evaluate(() => {
      const image = document.querySelector("#first") as HTMLImageElement;
      image.alt = "other";
      image.src = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw==";
    });
    await until("other load");
    expect(await page.evaluate(() => (document.querySelector("#first") as HTMLImageElement).naturalWidth)).toBe(1);
  }, 180_000);

  it.each(["/hostile/none.vq2", "/index.html?x.vq2", "/page.css#.vq2"])(
    "without a picture: %s",
    async (src) => {
      // Addresses that only look like it are left alone: their errors are the browser's.
      const ours = src.startsWith("/hostile");
      await page.evaluate((src) => add(src, { src }), src);
      await until(`${src} error`);
      await page.waitForTimeout(200);
      const heard = await page.evaluate((src) => events.filter((event) => event.startsWith(src)), src);
      expect(heard).toEqual(ours ? [`${src} vq2error`, `${src} error`] : [`${src} error`]);
      const left = await page.evaluate((alt) => {
        const image = [...document.images].find((image) => image.alt === alt);
        return [image?.getAttribute("src"), image?.naturalWidth];
      }, src);
      expect(left).toEqual([src, 0]);
    },
    60_000,
  );

  it("take another source from their error, and the page hears what was wrong", async () => {
    const message = await page.evaluate(async (fallback) => {
      const image = add("fallback", { src: "/nothing.vq2" });
      image.onerror = () => {
        image.onerror = null;
        image.src = fallback;
      };
      return new Promise<string>((resolve) =>
        document.addEventListener("vq2error", (event) => resolve((event as CustomEvent<Error>).detail.message)),
      );
    }, CUP);
    expect(message).toContain("404");
    await until("fallback load");
  }, 180_000);
});

declare const events: string[];
declare function note(image: HTMLImageElement): HTMLImageElement;
declare function add(alt: string, attributes: Partial<HTMLImageElement>): HTMLImageElement;
