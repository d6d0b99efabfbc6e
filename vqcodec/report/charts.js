// Curves: values under the pointer and by keyboard, and a legend that hides and shows.
(() => {
  "use strict";
  const REACH = 60; // units of the SVG within which the pointer finds a point

  function setUp(figure) {
    const svg = figure.querySelector("svg");
    const tip = figure.querySelector(".tip");
    const ring = svg.querySelector(".ring");
    const curves = [...svg.querySelectorAll(".curve")]
      .sort((a, b) => a.dataset.order - b.dataset.order)
      .map((curve) => ({
        curve,
        points: [...curve.querySelectorAll(".point")].map((point) => {
          const at = point.transform.baseVal.consolidate().matrix;
          return { x: at.e, y: at.f, text: JSON.parse(point.dataset.value) };
        }),
      }));
    const shown = () => curves.filter(({ curve, points }) => points.length && !curve.hasAttribute("hidden"));
    let place = null; // [curve, point] that the keyboard is at

    function show(point) {
      ring.setAttribute("cx", point.x);
      ring.setAttribute("cy", point.y);
      ring.removeAttribute("hidden");
      const [who, ...values] = point.text;
      tip.replaceChildren(Object.assign(document.createElement("b"), { textContent: who }), values.join(", "));
      tip.hidden = false;
      const box = svg.getBoundingClientRect();
      const unit = box.width / svg.viewBox.baseVal.width;
      const left = point.x * unit - tip.offsetWidth / 2;
      const at = box.top - figure.getBoundingClientRect().top + point.y * unit;
      const above = at - tip.offsetHeight - 12;
      tip.style.left = `${Math.max(0, Math.min(box.width - tip.offsetWidth, left))}px`;
      tip.style.top = `${above < 0 ? at + 14 : above}px`;
    }

    function hide() {
      ring.setAttribute("hidden", "");
      tip.hidden = true;
    }

    function nearest(event) {
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      let best = null;
      for (const { points } of shown()) {
        for (const point of points) {
          const distance = Math.hypot(point.x - at.x, point.y - at.y);
          if (distance < (best ? best.distance : REACH)) best = { distance, point };
        }
      }
      return best && best.point;
    }

    function follow(event) {
      const point = nearest(event);
      if (point) show(point);
      else hide();
    }

    function step(event) {
      const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
      const all = shown();
      if (event.key === "Escape") hide();
      if (!(event.key in moves) || !all.length) return;
      event.preventDefault();
      const [across, along] = moves[event.key];
      const now = place && all.includes(place.curve) ? all.indexOf(place.curve) : 0;
      const curve = all[(now + across + all.length) % all.length];
      const before = place ? Math.min(place.point, curve.points.length - 1) : along > 0 ? -1 : 0;
      place = { curve, point: Math.max(0, Math.min(curve.points.length - 1, before + along)) };
      show(curve.points[place.point]);
    }

    svg.addEventListener("pointermove", follow);
    svg.addEventListener("pointerdown", follow);
    svg.addEventListener("pointerleave", hide);
    svg.addEventListener("keydown", step);
    svg.addEventListener("blur", hide);
  }

  document.querySelectorAll(".chart").forEach(setUp);
  for (const key of document.querySelectorAll(".key")) {
    key.addEventListener("click", () => {
      const on = key.getAttribute("aria-pressed") !== "true";
      key.setAttribute("aria-pressed", String(on));
      for (const curve of key.closest(".charts").querySelectorAll("svg [data-curve]")) {
        if (curve.dataset.curve === key.dataset.curve) curve.toggleAttribute("hidden", !on);
      }
    });
  }
})();
