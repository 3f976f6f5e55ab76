"""The page's only script: language, legend, sorting, choices, and what is told on hovering. It loads nothing."""

from __future__ import annotations

import base64
import hashlib

__all__ = ["SCRIPT", "script_digest"]

SCRIPT = """
"use strict";
(() => {
const root = document.documentElement, all = (query, from) => [...(from || document).querySelectorAll(query)];
const codes = {"en": "en", "zh-Hans": "zh"};
function speak(tag) {
  root.lang = tag;
  const code = codes[tag];
  all("[data-language]").forEach(b => b.setAttribute("aria-pressed", String(b.dataset.language === tag)));
  for (const name of ["aria-label", "data-tip"])
    all(`[data-say-${name}]`).forEach(e => e.setAttribute(name, JSON.parse(e.getAttribute(`data-say-${name}`))[code]));
  const title = document.querySelector("title");
  if (title.dataset.say) title.textContent = JSON.parse(title.dataset.say)[code];
}
all("[data-language]").forEach(b => b.addEventListener("click", () => speak(b.dataset.language)));
all("[data-key]").forEach(b => b.addEventListener("click", () => {
  const on = b.getAttribute("aria-pressed") === "false", key = b.dataset.key;
  all(`[data-key="${key}"]`).forEach(o => o.setAttribute("aria-pressed", String(on)));
  all(`.chart [data-arm="${key}"]`).forEach(e => e.classList.toggle("off", !on));
}));
all(".choice").forEach(box => {
  const buttons = all("[data-choice]", box), bodies = all("[data-chosen]", box);
  const choose = n => {
    buttons.forEach(b => b.setAttribute("aria-pressed", String(b.dataset.choice === n)));
    bodies.forEach(b => { b.hidden = b.dataset.chosen !== n; });
  };
  buttons.forEach(b => b.addEventListener("click", () => choose(b.dataset.choice)));
  choose("0");
});
all("table.sortable").forEach(table => all("th", table).forEach((head, column) => {
  head.firstChild.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending", body = table.tBodies[0];
    all("th", table).forEach(h => h.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = row => row.cells[column].dataset.key;
    const rows = [...body.rows].sort((a, b) => {
      const x = key(a), y = key(b);
      if (x === "" || y === "") return (x === "") - (y === "");
      const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
      return down ? -order : order;
    });
    body.append(...rows);
  });
}));
const tip = document.createElement("div");
tip.className = "tip"; tip.hidden = true; document.body.append(tip);
function show(event, fill) {
  tip.replaceChildren(); fill(); tip.hidden = false;
  const box = tip.getBoundingClientRect(), wide = root.clientWidth, gap = 14;
  let left = event.clientX + gap, top = event.clientY + gap;
  if (left + box.width > wide - 6) left = Math.max(6, event.clientX - gap - box.width);
  if (top + box.height > innerHeight - 6) top = Math.max(6, event.clientY - gap - box.height);
  tip.style.left = left + "px"; tip.style.top = top + "px";
}
const hide = () => { tip.hidden = true; all(".hair").forEach(h => h.remove()); };
document.addEventListener("pointerover", event => {
  const on = event.target.closest && event.target.closest("[data-tip]");
  if (on) show(event, () => { tip.textContent = on.dataset.tip; });
});
document.addEventListener("pointerout", event => {
  if (event.target.closest && event.target.closest("[data-tip]")) hide();
});
const axis = text => {
  const [low, high, kind] = text.split(" ");
  return {low: +low, high: +high, log: kind === "log"};
};
const value = (a, share) => a.log ? a.low * Math.pow(a.high / a.low, share) : a.low + (a.high - a.low) * share;
all("[data-hover]").forEach(plot => {
  const x = axis(plot.dataset.x), y = axis(plot.dataset.y), factor = +plot.dataset.factor, unit = plot.dataset.unit;
  let lines = null;
  const read = () => all("polyline.line", plot).map(line => ({
    arm: line, points: line.getAttribute("points").split(" ").map(p => p.split(",").map(Number))
  }));
  plot.addEventListener("pointermove", event => {
    lines = lines || read();
    const box = plot.getBoundingClientRect(), at = 1000 * (event.clientX - box.left) / box.width;
    if (at < 0 || at > 1000) return hide();
    const found = [];
    for (const {arm, points} of lines) {
      if (arm.classList.contains("off")) continue;
      let best = points[0];
      for (const p of points) if (Math.abs(p[0] - at) < Math.abs(best[0] - at)) best = p;
      if (Math.abs(best[0] - at) > 60 && points.length > 1) continue;
      found.push({name: arm.dataset.name, colour: getComputedStyle(arm).stroke, step: value(x, best[0] / 1000),
        value: factor * value(y, 1 - best[1] / 1000)});
    }
    if (!found.length) return hide();
    found.sort((a, b) => b.value - a.value);
    let hair = plot.querySelector(".hair");
    if (!hair) { hair = document.createElement("i"); hair.className = "hair"; plot.append(hair); }
    hair.style.left = at / 10 + "%";
    show(event, () => {
      tip.append(String(Math.round(found[0].step)));
      for (const f of found.slice(0, 14)) {
        const row = document.createElement("div"), dot = document.createElement("i");
        dot.style.background = f.colour;
        row.append(dot, `${f.name}  ${Number(f.value.toPrecision(4))}${unit}`);
        tip.append(row);
      }
    });
  });
  plot.addEventListener("pointerleave", hide);
});
addEventListener("scroll", hide, {passive: true});
})();
"""


def script_digest() -> str:
    """Return the source that a content security policy allows this script, and no other, by."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode() + "'"
