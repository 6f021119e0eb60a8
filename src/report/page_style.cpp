#include "report/page_style.h"

namespace fathom {

const char* const kPageStyle = R"css(
:root {
  color-scheme: light dark;
  --paper: #fbfaf7; --card: #ffffff; --ink: #1c2430; --soft: #667080; --line: #e5e2da; --faint: #f2f0ea;
  --right: #12805c; --accent: #1f5fbf;
  --c0: #1f5fbf; --c1: #d2691e; --c2: #12805c; --c3: #8e44ad; --c4: #b8860b; --c5: #c0392b;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #12161c; --card: #1a2029; --ink: #e6e9ee; --soft: #95a0b0; --line: #2c3541; --faint: #222a35;
    --right: #3ecf9b; --accent: #7fb0ff;
    --c0: #7fb0ff; --c1: #ff9e57; --c2: #3ecf9b; --c3: #c792ea; --c4: #e6c35c; --c5: #ff7b72;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif;
}
main { max-width: 1120px; margin: 0 auto; padding: 48px 28px 96px; }
header { margin-bottom: 36px; }
h1 { font-size: 34px; line-height: 1.15; letter-spacing: -0.02em; margin: 0 0 6px; font-weight: 700; }
h2 { font-size: 21px; letter-spacing: -0.01em; margin: 56px 0 4px; font-weight: 650; }
h3 { font-size: 15px; margin: 0 0 12px; font-weight: 650; }
.lead, .note { color: var(--soft); margin: 0 0 18px; max-width: 72ch; }
.mark { color: var(--accent); font-weight: 650; letter-spacing: 0.08em; text-transform: uppercase; font-size: 12px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: 14px; }
.tile, .card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 18px 20px; }
.tile b { display: block; font-size: 28px; line-height: 1.2; font-weight: 650; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: 13px; display: block; }
.tile .aside { margin-top: 6px; font-size: 12px; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr)); gap: 18px; }
.table { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 8px 12px; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 550; font-size: 13px; }
th:first-child, td:first-child { text-align: left; }
tr:last-child td { border-bottom: 0; }
tr.chance td { color: var(--soft); }
dl { display: grid; grid-template-columns: minmax(120px, auto) 1fr; gap: 4px 18px; margin: 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
details { margin-top: 16px; }
summary { cursor: pointer; color: var(--accent); }
.gated { font-size: 15px; line-height: 1.9; white-space: pre-wrap; }
.gated span { background: color-mix(in srgb, var(--accent) calc(var(--share) * 55%), transparent); border-radius: 3px; }
svg.kept rect { fill: var(--accent); }
.layers { display: grid; grid-template-columns: repeat(auto-fill, minmax(96px, 1fr)); gap: 10px; margin-top: 12px; }
.layers img { display: block; width: 100%; border-radius: 6px; }
pre { background: var(--faint); border-radius: 8px; padding: 14px; overflow-x: auto; font-size: 13px; white-space: pre-wrap; }
svg.plot { display: block; width: 100%; height: auto; overflow: visible; }
.plot text { fill: var(--soft); font-size: 12px; font-family: inherit; font-variant-numeric: tabular-nums; }
.plot .title { fill: var(--ink); font-size: 15px; font-weight: 650; }
.plot .grid { stroke: var(--line); stroke-width: 1; }
.plot .axis { stroke: var(--soft); stroke-width: 1; }
.plot .line { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.plot .c0 { stroke: var(--c0); } .plot .c1 { stroke: var(--c1); } .plot .c2 { stroke: var(--c2); }
.plot .c3 { stroke: var(--c3); } .plot .c4 { stroke: var(--c4); } .plot .c5 { stroke: var(--c5); }
.plot .dot { fill: var(--card); stroke-width: 2; }
.plot .hover { fill: var(--ink); stroke: var(--card); stroke-width: 2; }
.plot .value { fill: var(--ink); font-weight: 600; paint-order: stroke; stroke: var(--card); stroke-width: 5px; }
.query { padding: 18px 0 20px; border-bottom: 1px solid var(--line); }
.query:last-child { border-bottom: 0; padding-bottom: 0; }
.query:first-child { padding-top: 0; }
.words { font-size: 16px; font-weight: 550; overflow-wrap: anywhere; }
.rank { color: var(--soft); font-size: 13px; margin-left: 8px; font-weight: 400; white-space: nowrap; }
.rank.first { color: var(--right); font-weight: 600; }
.found { display: grid; grid-template-columns: repeat(5, 1fr); gap: 12px; margin-top: 12px; }
.spectrogram { display: block; width: 100%; height: 112px; margin-top: 12px; border-radius: 8px; }
figure { margin: 0; min-width: 0; }
.found img { display: block; width: 100%; aspect-ratio: 1; object-fit: cover; border-radius: 8px; background: var(--faint);
  border: 3px solid transparent; }
.found .right img { border-color: var(--right); box-shadow: 0 0 0 2px var(--card) inset; }
figcaption { color: var(--soft); font-size: 12px; margin-top: 6px; line-height: 1.35; overflow-wrap: anywhere;
  display: -webkit-box; -webkit-line-clamp: 3; -webkit-box-orient: vertical; overflow: hidden; }
.asked { display: grid; grid-template-columns: 144px 1fr; gap: 20px; align-items: start; }
.asked img { width: 144px; aspect-ratio: 1; object-fit: cover; border-radius: 8px; background: var(--faint); }
.asked ol { margin: 4px 0 0; padding-left: 22px; }
.asked li { margin-bottom: 3px; overflow-wrap: anywhere; }
.asked li.right { color: var(--right); font-weight: 600; }
.asked li.right::after { content: " ✓"; }
footer { margin-top: 64px; color: var(--soft); font-size: 13px; }
@media (max-width: 640px) { .found { grid-template-columns: repeat(3, 1fr); } .asked { grid-template-columns: 96px 1fr; }
  .asked img { width: 96px; } main { padding: 28px 16px 64px; } }
@media print { .card, .tile, .query { break-inside: avoid; } }
)css";

const char* const kPageScript = R"js(
for (const plot of document.querySelectorAll("svg.plot")) {
  const points = JSON.parse(plot.dataset.points), make = (name, kind) => {
    const made = plot.appendChild(document.createElementNS("http://www.w3.org/2000/svg", name));
    made.setAttribute("class", kind); made.style.display = "none"; made.style.pointerEvents = "none"; return made;
  };
  const dot = make("circle", "hover"), label = make("text", "value");
  dot.setAttribute("r", 5);
  plot.addEventListener("pointermove", event => {
    const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(plot.getScreenCTM().inverse());
    let best = null, least = Infinity;
    for (const point of points) {
      const distance = Math.hypot(point[0] - place.x, 0.5 * (point[1] - place.y));
      if (distance < least) { least = distance; best = point; }
    }
    if (!best) return;
    dot.setAttribute("cx", best[0]); dot.setAttribute("cy", best[1]);
    label.textContent = best[2];
    label.setAttribute("x", Math.min(Math.max(best[0], 120), 440)); label.setAttribute("y", Math.max(best[1] - 12, 40));
    label.setAttribute("text-anchor", "middle");
    dot.style.display = label.style.display = "";
  });
  plot.addEventListener("pointerleave", () => { dot.style.display = label.style.display = "none"; });
}
)js";

}  // namespace fathom
