// The viewer: two pictures of one image in one frame, with one zoom and one position for all of them.
(() => {
  "use strict";
  const MOST = 16; // largest zoom, CSS pixels a pixel of the image
  const id = (name) => document.getElementById(`view-${name}`);
  const section = document.getElementById("viewer");
  const stage = id("stage");
  const panes = { left: stage.querySelector(".pane.left img"), right: stage.querySelector(".pane.right img") };
  const heat = stage.querySelector(".heat");
  const cut = heat.querySelector(".cut");
  const divider = stage.querySelector(".divider");
  const tags = { left: stage.querySelector(".tag.left"), right: stage.querySelector(".tag.right") };
  const sources = [...section.querySelectorAll("script.case")];
  // x, y: of the image's corner in the stage, CSS pixels; split: of the stage's width
  const state = { number: 0, image: null, left: 0, right: 1, scale: 1, x: 0, y: 0, fitted: true, split: 0.5 };
  const flags = { flicker: false, swapped: false, bits: false };

  const thousands = (value) => String(value).replace(/\B(?=(\d{3})+$)/g, "\u202f");
  const digits = (value, count) => (value === null || value === undefined ? "–" : value.toFixed(count).replace("-", "−"));

  function fitScale() {
    return Math.min(stage.clientWidth / state.image.width, stage.clientHeight / state.image.height);
  }

  function clamp() {
    for (const [axis, side, room] of [["x", "width", stage.clientWidth], ["y", "height", stage.clientHeight]]) {
      const slack = room - state.image[side] * state.scale;
      state[axis] = slack >= 0 ? slack / 2 : Math.min(0, Math.max(slack, state[axis]));
    }
  }

  function zoomTo(scale, x = stage.clientWidth / 2, y = stage.clientHeight / 2) {
    const least = Math.min(1, fitScale());
    const next = Math.min(MOST, Math.max(least, scale));
    state.x = x - ((x - state.x) * next) / state.scale;
    state.y = y - ((y - state.y) * next) / state.scale;
    state.scale = next;
    state.fitted = Math.abs(next - fitScale()) < 1e-6;
    draw();
  }

  function fit() {
    state.scale = fitScale();
    state.fitted = true;
    draw();
  }

  function enlarged() {
    const { image, scale } = state;
    return image.width * scale > stage.clientWidth + 0.5 || image.height * scale > stage.clientHeight + 0.5;
  }

  function draw() {
    clamp();
    const place = `translate(${state.x}px, ${state.y}px) scale(${state.scale})`;
    for (const element of [panes.left, panes.right, cut]) element.style.transform = place;
    const split = flags.flicker ? (flags.swapped ? 1 : 0) : state.split;
    panes.right.parentElement.style.clipPath = `inset(0 0 0 ${100 * split}%)`;
    divider.style.left = `${100 * split}%`;
    divider.hidden = flags.flicker;
    tags.left.hidden = flags.flicker && !flags.swapped;
    tags.right.hidden = flags.flicker && flags.swapped;
    heat.hidden = !flags.bits;
    heat.style.opacity = id("strength").value / 100;
    stage.classList.toggle("enlarged", enlarged());
    stage.classList.toggle("flicker", flags.flicker);
    stage.classList.toggle("sharp", state.scale * devicePixelRatio >= 2);
    id("split").value = 100 * state.split;
    id("split").disabled = flags.flicker;
    id("zoom").textContent = `${Math.round(100 * state.scale)} %`;
  }

  function choose(side, number) {
    const picture = state.image.pictures[number];
    if (!picture) return;
    state[side] = number;
    panes[side].src = picture.src;
    panes[side].alt = `${state.image.image}: ${picture.name}`;
    tags[side].textContent = picture.name;
    id(side).value = String(number);
    facts();
  }

  function facts() {
    const rows = state.image.pictures.map((picture, number) => {
      const row = document.createElement("tr");
      const head = Object.assign(document.createElement("th"), { scope: "row", textContent: picture.name });
      for (const side of ["left", "right"]) {
        if (state[side] !== number) continue;
        row.className = "chosen";
        head.append("\u00a0", Object.assign(document.createElement("span"), { className: "side", textContent: side }));
      }
      const note = picture.fits ? picture.setting : `${picture.setting}; no smaller file`;
      if (note) head.append(Object.assign(document.createElement("span"), { className: "sub", textContent: note }));
      const size = picture.bytes ? thousands(picture.bytes) : "–";
      const values = [size, digits(picture.psnr, 2), digits(picture.ms_ssim, 4), digits(picture.ssimulacra2, 1)];
      row.append(head, ...values.map((text) => Object.assign(document.createElement("td"), { textContent: text })));
      return row;
    });
    id("facts").replaceChildren(...rows);
  }

  function bitsText() {
    const { bits, pictures } = state.image;
    const ideal = bits.levels.reduce((sum, level) => sum + level, 0);
    const stages = bits.stages.map((number, i) => `${number.toFixed(2)} at level ${i}`).join(", ");
    const shares = bits.levels.map((level, i) => `level ${i}: ${((100 * level) / ideal).toFixed(1)} %`).join(", ");
    return (
      `Bits of all indices under the prior, where they lie in the image; an estimate. They sum to ` +
      `${thousands(Math.round(ideal))} bits, ${thousands(Math.ceil(ideal / 8))} bytes (${shares}); the index streams ` +
      `have ${thousands(bits.streamBytes)} bytes, the file ${thousands(pictures[1].bytes)}. ` +
      `The most is ${bits.most.toFixed(2)} bits per pixel. Stages that a position uses, on average: ${stages}. The colours mean the same on all images.`
    );
  }

  function open(number) {
    state.number = (number + sources.length) % sources.length;
    state.image = JSON.parse(sources[state.number].textContent);
    const { image } = state;
    stage.style.aspectRatio = `${image.width} / ${image.height}`;
    for (const element of [panes.left, panes.right, cut]) {
      element.style.width = `${image.width}px`;
      element.style.height = `${image.height}px`;
    }
    const map = heat.querySelector("img");
    map.src = image.bits.src;
    map.style.width = `${image.bits.width}px`;
    map.style.height = `${image.bits.height}px`;
    id("image").value = String(state.number);
    for (const side of ["left", "right"]) {
      id(side).replaceChildren(...image.pictures.map((picture, i) => new Option(picture.name, i)));
      choose(side, Math.min(state[side], image.pictures.length - 1));
    }
    id("bits-text").textContent = bitsText();
    fit();
  }

  function set(flag, on) {
    flags[flag] = on;
    if (flag === "flicker") flags.swapped = false;
    if (flag !== "swapped") id(flag).setAttribute("aria-pressed", String(on));
    section.querySelector(".bits").hidden = !flags.bits;
    section.querySelector(".strength").hidden = !flags.bits;
    draw();
  }

  function splitAt(fraction) {
    state.split = Math.min(1, Math.max(0, fraction));
    draw();
  }

  // pointers: one drags the divider or the picture, two zoom
  const pointers = new Map();
  let dragging = null;
  const inStage = (event) => {
    const box = stage.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };
  const pair = () => {
    const [a, b] = [...pointers.values()];
    return { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, apart: Math.hypot(a.x - b.x, a.y - b.y) };
  };

  stage.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    stage.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, inStage(event));
    const onDivider = event.target.closest(".divider") !== null;
    dragging = flags.flicker && !enlarged() ? "nothing" : onDivider || !enlarged() ? "divider" : "picture";
    if (dragging === "divider" && pointers.size === 1 && event.pointerType === "mouse") {
      splitAt(inStage(event).x / stage.clientWidth);
    }
  });
  stage.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const now = inStage(event);
    if (pointers.size === 2) {
      const old = pair();
      pointers.set(event.pointerId, now);
      const next = pair();
      state.x += next.x - old.x;
      state.y += next.y - old.y;
      if (old.apart > 0) zoomTo((state.scale * next.apart) / old.apart, next.x, next.y);
      dragging = "picture";
      return;
    }
    pointers.set(event.pointerId, now);
    if (dragging === "divider") splitAt(now.x / stage.clientWidth);
    if (dragging === "picture") {
      state.x += now.x - before.x;
      state.y += now.y - before.y;
      draw();
    }
  });
  const release = (event) => pointers.delete(event.pointerId);
  stage.addEventListener("pointerup", release);
  stage.addEventListener("pointercancel", release);
  stage.addEventListener("click", () => flags.flicker && !enlarged() && set("swapped", !flags.swapped));
  stage.addEventListener("dblclick", (event) => {
    const at = inStage(event);
    if (enlarged()) fit();
    else zoomTo(3 * fitScale(), at.x, at.y);
  });
  stage.addEventListener(
    "wheel",
    (event) => {
      if (!event.ctrlKey && document.activeElement !== stage) return; // the page scrolls
      event.preventDefault();
      const at = inStage(event);
      zoomTo(state.scale * Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0015)), at.x, at.y);
    },
    { passive: false },
  );

  function arrow(across, down) {
    if (enlarged()) {
      state.x -= 40 * across;
      state.y -= 40 * down;
      draw();
    } else if (across) {
      splitAt(state.split + 0.02 * across);
    }
  }
  const keys = {
    ArrowLeft: () => arrow(-1, 0),
    ArrowRight: () => arrow(1, 0),
    ArrowUp: () => arrow(0, -1),
    ArrowDown: () => arrow(0, 1),
    "+": () => zoomTo(state.scale * 1.25),
    "=": () => zoomTo(state.scale * 1.25),
    "-": () => zoomTo(state.scale / 1.25),
    0: fit,
    f: () => set("flicker", !flags.flicker),
    " ": () => flags.flicker && set("swapped", !flags.swapped),
    b: () => set("bits", !flags.bits),
    n: () => open(state.number + 1),
    p: () => open(state.number - 1),
  };
  stage.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const digit = /^Digit([1-9])$/.exec(event.code);
    const action = digit
      ? () => choose(event.shiftKey ? "left" : "right", Number(digit[1]) - 1)
      : keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });

  id("image").replaceChildren(...sources.map((source, i) => new Option(source.dataset.image, i)));
  id("image").addEventListener("change", (event) => open(Number(event.target.value)));
  for (const side of ["left", "right"]) {
    id(side).addEventListener("change", (event) => choose(side, Number(event.target.value)));
  }
  id("split").addEventListener("input", (event) => splitAt(event.target.value / 100));
  id("strength").addEventListener("input", draw);
  id("in").addEventListener("click", () => zoomTo(state.scale * 1.5));
  id("out").addEventListener("click", () => zoomTo(state.scale / 1.5));
  id("fit").addEventListener("click", fit);
  id("one").addEventListener("click", () => zoomTo(1));
  id("flicker").addEventListener("click", () => set("flicker", !flags.flicker));
  id("bits").addEventListener("click", () => set("bits", !flags.bits));

  section.querySelector(".view").hidden = false;
  open(0);
  new ResizeObserver(() => (state.fitted ? fit() : draw())).observe(stage);
})();
