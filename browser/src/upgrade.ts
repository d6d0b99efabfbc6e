// SPDX-License-Identifier: Apache-2.0
// Pictures of a page: every <img> whose source is a `.vq2` file shows it, as if the browser knew the format.
import type { Decoder } from "./decoder.js";
import { toPng } from "./saving.js";

interface State {
  source: string;
  /** What replaces it. */
  url?: string;
  controller: AbortController;
}

const AHEAD = "1000px 0px"; // of the window: where lazy images are loaded

/**
 * Shows every `<img>` whose `src`, or chosen candidate of `srcset`, ends with .vq2; those that come or change later, too.
 * It then has a PNG file as its source, and the address of the `.vq2` file in `data-vq2`. `load` and `error` come as of any
 * image; `vq2error` has the error as its detail. Lazy images wait until they are near the window.
 *
 * Returns a function that stops it: images that are shown stay.
 */
export function upgradeImages(root: ParentNode & Node = document, decoder?: Decoder): () => void {
  const states = new WeakMap<HTMLImageElement, State>();
  const kept = new FinalizationRegistry((url: string) => URL.revokeObjectURL(url));

  const near = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries) {
        if (!isIntersecting) continue;
        near.unobserve(target);
        void show(target as HTMLImageElement);
      }
    },
    { rootMargin: AHEAD },
  );

  const look = (image: HTMLImageElement) => {
    const source = sourceOf(image);
    const state = states.get(image);
    if (state && (source === state.source || source === state.url)) return;
    state?.controller.abort();
    states.delete(image);
    if (state?.url) URL.revokeObjectURL(state.url);
    near.unobserve(image);
    if (!isVq2(source)) return;
    states.set(image, { source, controller: new AbortController() });
    if (image.loading === "lazy") near.observe(image);
    else void show(image);
  };

  const show = async (image: HTMLImageElement) => {
    const state = states.get(image);
    if (!state) return;
    const { source, controller } = state;
    try {
      const bytes = await fetched(image, source, controller.signal);
      const file = await toPng(bytes, { decoder, signal: controller.signal });
      if (states.get(image) !== state) return;
      state.url = URL.createObjectURL(file);
      kept.register(image, state.url);
      replace(image, source, state.url);
    } catch (error) {
      if (states.get(image) !== state) return;
      image.dispatchEvent(new CustomEvent("vq2error", { detail: error, bubbles: true }));
      image.dispatchEvent(new Event("error"));
    }
  };

  // The browser knows no such file and says so: that is no error yet. Ours are not trusted events.
  // Which candidate of srcset it chose may be known no sooner.
  const hide = (event: Event) => {
    const { target, isTrusted } = event;
    if (!isTrusted || !(target instanceof HTMLImageElement) || !isVq2(sourceOf(target))) return;
    event.stopImmediatePropagation();
    look(target);
  };
  // Sources are chosen after the changes, in a task of the browser's.
  let due = false;
  const all = () => {
    due = false;
    for (const image of root.querySelectorAll("img")) look(image);
  };
  const observer = new MutationObserver(() => {
    if (!due) setTimeout(all);
    due = true;
  });
  root.addEventListener("error", hide, true);
  const attributeFilter = ["src", "srcset", "sizes", "loading"];
  observer.observe(root, { subtree: true, childList: true, attributes: true, attributeFilter });
  all();
  return () => {
    observer.disconnect();
    near.disconnect();
    root.removeEventListener("error", hide, true);
  };
}

function sourceOf(image: HTMLImageElement): string {
  return (image.srcset && image.currentSrc) || image.src;
}

function isVq2(source: string): boolean {
  return /^[^?#]*\.vq2([?#]|$)/i.test(source);
}

async function fetched(image: HTMLImageElement, source: string, signal: AbortSignal): Promise<ArrayBuffer> {
  const credentials = image.crossOrigin === "use-credentials" ? "include" : "same-origin";
  const referrerPolicy = image.referrerPolicy as ReferrerPolicy;
  const answer = await fetch(source, { credentials, signal, ...(referrerPolicy && { referrerPolicy }) });
  if (!answer.ok) throw new Error(`${source}: ${answer.status}`);
  return answer.arrayBuffer();
}

/** A candidate of srcset keeps its descriptor, and so the size at which it is shown. */
function replace(image: HTMLImageElement, source: string, url: string): void {
  image.dataset.vq2 = source;
  const candidates = image.srcset.split(/,\s+|\s+,/).map((text) => text.trim().split(/\s+/));
  const chosen = candidates.find(([address]) => address && new URL(address, image.baseURI).href === source);
  if (chosen) image.srcset = [url, ...chosen.slice(1)].join(" ");
  else image.removeAttribute("srcset");
  if (!chosen || isVq2(image.src)) image.src = url;
}
