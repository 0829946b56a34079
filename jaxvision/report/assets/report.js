"use strict";

// Charts: drawn when they come near, in the colours of the page, and again when those change.
const dark = matchMedia("(prefers-color-scheme: dark)");
const views = new Map();

function theme() {
  const ink = dark.matches ? "#e6edf3" : "#1b1f24";
  const soft = dark.matches ? "#30363d" : "#e1e5ea";
  return {
    background: null,
    view: { stroke: null },
    axis: {
      labelColor: ink, titleColor: ink, gridColor: soft, domainColor: soft, tickColor: soft,
      titleFontWeight: "normal", labelLimit: 160,
    },
    legend: { labelColor: ink, titleColor: ink, orient: "bottom", columns: 3, labelLimit: 140,
      titleFontWeight: "normal", symbolStrokeWidth: 2 },
    rule: { color: ink },
    text: { color: ink },
    range: {
      category: dark.matches
        ? ["#79b8ff", "#ffab70", "#85e89d", "#f97583", "#b392f0", "#e3b341", "#56d4dd", "#ff9bce"]
        : ["#0550ae", "#b35900", "#116329", "#a40e26", "#6639ba", "#7d4e00", "#0b6a76", "#a0307e"],
    },
  };
}

async function draw(place) {
  const spec = JSON.parse(document.getElementById(place.dataset.chart).textContent);
  spec.$schema = "https://vega.github.io/schema/vega-lite/v6.json";
  spec.width = "container";
  spec.autosize = { type: "fit-x", contains: "padding" };
  const old = views.get(place);
  if (old) old.finalize();
  const options = {
    renderer: "svg", ast: true, config: theme(), theme: dark.matches ? "dark" : undefined,
    actions: { export: true, source: false, compiled: false, editor: false },
    tooltip: { theme: dark.matches ? "dark" : "light" },
  };
  views.set(place, await vegaEmbed(place, spec, options));
  place.dataset.drawn = "yes";
}

const charts = [...document.querySelectorAll("[data-chart]")];
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting && !views.has(entry.target)) {
      views.set(entry.target, null);
      draw(entry.target);
    }
  }
}, { rootMargin: "600px" });
charts.forEach((place) => watcher.observe(place));
dark.addEventListener("change", () => charts.filter((c) => views.has(c)).forEach(draw));
addEventListener("beforeprint", () => charts.filter((c) => !views.has(c)).forEach(draw));

// Galleries: by tag, and mistakes alone.
function filter(name) {
  const gallery = document.getElementById(name);
  const tag = document.querySelector(`[data-filter="${name}"]`).value;
  const box = document.querySelector(`[data-wrong="${name}"]`);
  const items = [...gallery.children];
  for (const item of items) {
    const has = !tag || JSON.parse(item.dataset.tags).includes(tag);
    item.hidden = !has || Boolean(box && box.checked && !item.classList.contains("wrong"));
  }
  const shown = items.filter((item) => !item.hidden).length;
  document.getElementById(`${name}o`).textContent = `${shown} of ${items.length} shown`;
}
for (const control of document.querySelectorAll("[data-filter], [data-wrong]")) {
  control.addEventListener("change", () => filter(control.dataset.filter || control.dataset.wrong));
}

// Tables: by column; numbers by value, others as text, what is missing last.
for (const button of document.querySelectorAll("thead button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement;
    const place = [...head.parentElement.children].indexOf(head);
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = head.closest("table").tBodies[0];
    const numbers = head.classList.contains("n");
    const key = (row) => {
      const cell = row.children[place];
      return numbers ? (cell.dataset.v === undefined ? NaN : Number(cell.dataset.v))
        : cell.textContent;
    };
    const rows = [...body.rows].map((row) => [key(row), row]);
    rows.sort(([a], [b]) => {
      if (numbers) {
        if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
        return down ? b - a : a - b;
      }
      return down ? b.localeCompare(a) : a.localeCompare(b);
    });
    body.append(...rows.map(([, row]) => row));
  });
}
