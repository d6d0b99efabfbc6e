// SPDX-License-Identifier: Apache-2.0
// The viewer: files in, a preview at once, then the picture.
import { Decoder, type Info, info, type Phase, png, toPng } from "../src/index.js";
import { manifest } from "../src/models.js";
import { metadataOf } from "../src/saving.js";
import { swaps } from "../src/turning.js";
import { showFacts, showTime } from "./facts.js";

const element = <T extends HTMLElement>(id: string) => document.getElementById(id) as T;
let canvas = element<HTMLCanvasElement>("picture");
const stage = element("stage");
const files: File[] = [];
const decoder = new Decoder();
const names = manifest(new URL("models/", import.meta.url).href)
  .then((models) => new Map(models.map(({ identity, name }) => [identity, name])))
  .catch(() => new Map<string, string>());
const PHASES: Record<Phase, string> = {
  model: "Loading the model",
  indices: "Reading indices",
  pixels: "Making pixels",
};

let shown = -1;
let running: AbortController | undefined;
let complete: { picture: ImageData; facts: Info; bytes: Uint8Array } | undefined;
let size: [number, number] | undefined; // of the picture, in pixels
let scale = 1;
let fitted = true;

function add(list: FileList | File[]): void {
  const first = files.length;
  files.push(...list);
  if (files.length > first) void show(first);
}

async function show(number: number): Promise<void> {
  const file = files[number];
  if (!file) return;
  running?.abort();
  const controller = new AbortController();
  running = controller;
  shown = number;
  showOthers();
  size = undefined;
  complete = undefined;
  canvas.hidden = true;
  element("empty").hidden = true;
  element("error").hidden = true;
  element("facts").hidden = true;
  enable(false);
  progress("Reading the file", undefined);
  try {
    const bytes = new Uint8Array(await file.arrayBuffer());
    const facts = await info(bytes);
    if (running !== controller) return;
    showFacts(file.name, facts, (await names).get(facts.model));
    const whole: [number, number] = swaps(facts.orientation)
      ? [facts.height, facts.width]
      : [facts.width, facts.height];
    const start = performance.now();
    const picture = await decoder.decode(bytes, {
      signal: controller.signal,
      onProgress: (phase, done) => {
        if (running !== controller) return;
        // Loaded, the networks are still to be built, which gives no sign.
        if (phase === "model" && done === 1) progress("Preparing the model", undefined);
        else progress(PHASES[phase], done);
      },
      onPreview: (image) => running === controller && draw(image, whole),
    });
    if (running !== controller) return;
    draw(picture, whole);
    showTime(performance.now() - start, decoder.backend);
    complete = { picture, facts, bytes };
    enable(true);
    document.body.dataset.state = "done";
  } catch (error) {
    if (running !== controller) return;
    const { name, message } = error as Error;
    element("error-name").textContent = name === "AbortError" ? "Stopped" : name;
    element("error-text").textContent = name === "AbortError" ? "The picture is not whole." : message;
    element("error").hidden = false;
    document.body.dataset.state = "error";
  }
  element("progress").hidden = true;
}

function progress(phase: string, done: number | undefined): void {
  document.body.dataset.state = "busy";
  element("progress").hidden = false;
  element("phase").textContent = phase;
  const bar = element<HTMLProgressElement>("bar");
  if (done === undefined) bar.removeAttribute("value");
  else bar.value = done;
}

function enable(on: boolean): void {
  element<HTMLButtonElement>("save").disabled = !on;
}

/** Draws a picture, or a small one in its stead. */
function draw(image: ImageData, whole: [number, number]): void {
  const colorSpace = image.colorSpace ?? "srgb";
  if ((canvas.dataset.space ?? "srgb") !== colorSpace) {
    const next = canvas.cloneNode() as HTMLCanvasElement; // a canvas keeps the space that it began with
    next.dataset.space = colorSpace;
    canvas.replaceWith(next);
    canvas = next;
  }
  canvas.width = image.width;
  canvas.height = image.height;
  canvas.getContext("2d", { colorSpace })?.putImageData(image, 0, 0);
  if (!size) fitted = true;
  size = whole;
  canvas.hidden = false;
  for (const id of ["smaller", "larger", "fit", "actual"]) element<HTMLButtonElement>(id).disabled = false;
  zoom(fitted ? undefined : scale);
}

/** To a number of screen pixels a pixel; undefined: as large as fits, and no larger than the original. */
function zoom(to: number | undefined): void {
  if (!size) return;
  const [width, height] = size;
  const ratio = window.devicePixelRatio;
  fitted = to === undefined;
  const room = Math.min((stage.clientWidth * ratio) / width, (stage.clientHeight * ratio) / height, 1);
  scale = Math.min(16, Math.max(0.02, to ?? room));
  canvas.style.width = `${(width * scale) / ratio}px`;
  canvas.style.height = `${(height * scale) / ratio}px`;
  canvas.classList.toggle("large", scale >= 2);
  element("zoom").textContent = `${Math.round(100 * scale)} %`;
}

function showOthers(): void {
  const nav = element("others");
  nav.hidden = files.length < 2;
  nav.replaceChildren(
    ...files.map(({ name }, i) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = name;
      if (i === shown) button.setAttribute("aria-current", "true");
      button.onclick = () => void show(i);
      return button;
    }),
  );
}

async function save(): Promise<void> {
  const file = files[shown];
  if (!file || !complete) return;
  const { picture, facts, bytes } = complete;
  // In colours of its own it is decoded once more, without a conversion.
  const same = (picture.colorSpace ?? "srgb") === facts.colours;
  const blob = await (same ? png(picture, metadataOf(facts)) : toPng(bytes, { decoder }));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${file.name.replace(/\.vq2$/i, "")}.png`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function choose(): void {
  element<HTMLInputElement>("files").click();
}

const actions: Record<string, () => void> = {
  open: choose,
  choose,
  smaller: () => zoom(scale / 1.25),
  larger: () => zoom(scale * 1.25),
  fit: () => zoom(undefined),
  actual: () => zoom(1),
  save: () => void save(),
  stop: () => running?.abort(),
};
for (const [id, action] of Object.entries(actions)) element(id).addEventListener("click", action);

const keys: Record<string, () => void> = {
  o: choose,
  "-": () => zoom(scale / 1.25),
  "+": () => zoom(scale * 1.25),
  "=": () => zoom(scale * 1.25),
  "0": () => zoom(undefined),
  "1": () => zoom(1),
  s: () => void save(),
  Escape: () => running?.abort(),
  ArrowLeft: () => void show(shown - 1),
  ArrowRight: () => void show(shown + 1),
};
const STEPS: Record<string, [number, number]> = {
  ArrowLeft: [-80, 0],
  ArrowRight: [80, 0],
  ArrowUp: [0, -80],
  ArrowDown: [0, 80],
};
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const step = STEPS[event.key];
  const [left, top] = step ?? [0, 0];
  // Arrows move a picture that is larger than the window, and else to another file.
  const larger = left ? stage.scrollWidth > stage.clientWidth : stage.scrollHeight > stage.clientHeight;
  const action =
    step && larger
      ? () => stage.scrollBy(left, top)
      : keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!action) return;
  event.preventDefault();
  action();
});

element<HTMLInputElement>("files").addEventListener("change", ({ target }) => {
  const input = target as HTMLInputElement;
  if (input.files) add(input.files);
  input.value = "";
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  stage.classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) stage.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  stage.classList.remove("over");
  if (event.dataTransfer) add(event.dataTransfer.files);
});
new ResizeObserver(() => fitted && zoom(undefined)).observe(stage);
