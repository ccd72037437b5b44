(() => {
  "use strict";
  const tip = document.getElementById("tip");
  const show = (x, y, strong, text) => {
    tip.replaceChildren();
    if (strong) {
      const b = document.createElement("b");
      b.textContent = strong;
      b.dir = "auto";
      tip.append(b);
    }
    tip.append(text);
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const room = document.documentElement.clientWidth;
    const left = Math.max(8, Math.min(x + 14, room - box.width - 8));
    tip.style.left = `${left}px`;
    tip.style.top = `${y - box.height - 14 < 8 ? y + 18 : y - box.height - 14}px`;
  };
  const hide = () => { tip.hidden = true; };

  // Charts: whatever carries data-tip says it.
  for (const plot of document.querySelectorAll(".plot")) {
    plot.addEventListener("pointermove", (e) => {
      const text = e.target.dataset && e.target.dataset.tip;
      if (text) show(e.clientX, e.clientY, "", text); else hide();
    });
    plot.addEventListener("pointerdown", (e) => {
      const text = e.target.dataset && e.target.dataset.tip;
      if (text) show(e.clientX, e.clientY, "", text);
    });
    plot.addEventListener("pointerleave", hide);
  }
  addEventListener("scroll", hide, { passive: true });

  const map = document.querySelector(".map");
  if (!map) return;
  const items = JSON.parse(document.getElementById("items").textContent);
  const frame = document.querySelector(".map-frame");
  const readout = document.getElementById("readout");
  const ring = map.querySelector(".ring");
  const circles = [];
  for (const c of map.querySelectorAll(".items circle")) circles[Number(c.dataset.i)] = c;
  let at = -1;

  const facts = ([, count, categories]) =>
    `${count.toLocaleString("en")} ${count === 1 ? "event" : "events"}` +
    (categories ? ` · ${categories}` : "");
  const point = (i) => {
    const c = circles[i].getBoundingClientRect();
    return [c.left + c.width / 2, c.top + c.height / 2];
  };
  const pick = (i, spoken) => {
    at = i;
    if (i < 0) {
      ring.setAttribute("display", "none");
      hide();
      return;
    }
    ring.removeAttribute("display");
    ring.setAttribute("cx", circles[i].getAttribute("cx"));
    ring.setAttribute("cy", circles[i].getAttribute("cy"));
    const [x, y] = point(i);
    show(x, y, items[i][0], facts(items[i]));
    if (spoken) readout.textContent = `${items[i][0]}: ${facts(items[i])}`;
  };
  // The nearest item within reach of the pointer; fingers reach further. With a category or a
  // search picked out only its items answer.
  const nearest = (x, y, reach) => {
    const box = map.getBoundingClientRect();
    const picked = map.classList.contains("picked");
    let best = -1;
    let least = reach * reach;
    for (let i = 0; i < circles.length; i += 1) {
      if (picked && !circles[i].classList.contains("on")) continue;
      const dx = (parseFloat(circles[i].getAttribute("cx")) / 100) * box.width + box.left - x;
      const dy = (parseFloat(circles[i].getAttribute("cy")) / 100) * box.height + box.top - y;
      const d = dx * dx + dy * dy;
      if (d < least) { least = d; best = i; }
    }
    return best;
  };
  frame.addEventListener("pointermove", (e) => {
    if (e.pointerType !== "touch") pick(nearest(e.clientX, e.clientY, 18), false);
  });
  frame.addEventListener("pointerup", (e) => {
    pick(nearest(e.clientX, e.clientY, e.pointerType === "touch" ? 30 : 18), true);
  });
  frame.addEventListener("pointerleave", (e) => { if (e.pointerType !== "touch") pick(-1, false); });
  frame.addEventListener("keydown", (e) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[e.key];
    if (e.key === "Escape") { pick(-1, false); return; }
    if (!step || !items.length) return;
    e.preventDefault();
    const picked = map.classList.contains("picked");
    let next = at;
    for (let tries = 0; tries < items.length; tries += 1) {
      next = (next + step + items.length) % items.length;
      if (!picked || circles[next].classList.contains("on")) break;
    }
    pick(next, true);
  });
  frame.addEventListener("blur", () => pick(-1, false));

  const find = document.getElementById("find");
  const buttons = [...document.querySelectorAll(".map-legend button")];
  const light = () => {
    const word = find.value.trim().toLocaleLowerCase();
    const kinds = buttons.filter((b) => b.getAttribute("aria-pressed") === "true")
      .map((b) => `k${b.dataset.k}`);
    let found = 0;
    circles.forEach((c, i) => {
      const on = (!word || items[i][0].toLocaleLowerCase().includes(word)) &&
        (!kinds.length || kinds.some((k) => c.classList.contains(k)));
      c.classList.toggle("on", on);
      found += on ? 1 : 0;
    });
    map.classList.toggle("picked", Boolean(word || kinds.length));
    return found;
  };
  find.addEventListener("input", () => {
    const found = light();
    const first = circles.findIndex((c) => c.classList.contains("on"));
    if (find.value.trim() && first >= 0) pick(first, false); else pick(-1, false);
    readout.textContent = !find.value.trim() ? "" : found === 0
      ? "No item on the map has this in its title."
      : `${found.toLocaleString("en")} found, the most frequent: ${items[first][0]}`;
  });
  for (const button of buttons) {
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") === "true";
      button.setAttribute("aria-pressed", String(!on));
      light();
    });
  }
})();
