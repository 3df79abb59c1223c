// Charts marked data-chart="id": options come as JSON in <script type="application/json" id="id">.
// Colours named "tone:good" and the like follow the theme.
const drawn = new Map();

function tone(name) {
  const variable = name === "surface" ? "--hub-surface" : `--tone-${name}`;
  return getComputedStyle(document.documentElement).getPropertyValue(variable).trim();
}

function resolve(value) {
  if (typeof value === "string" && value.startsWith("tone:")) return tone(value.slice(5));
  if (Array.isArray(value)) return value.map(resolve);
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, resolve(item)]));
  }
  return value;
}

function draw(element) {
  const source = document.getElementById(element.dataset.chart);
  if (!source || !window.echarts) return;
  drawn.get(element)?.dispose();
  const dark = document.documentElement.dataset.bsTheme === "dark";
  const chart = window.echarts.init(element, dark ? "dark" : null, { renderer: "svg" });
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  chart.setOption({ backgroundColor: "transparent", animation: !still, ...resolve(JSON.parse(source.textContent)) });
  chart.on("click", (point) => {
    if (point.data?.href) window.location.assign(point.data.href);
  });
  drawn.set(element, chart);
}

const start = (root) => root.querySelectorAll("[data-chart]").forEach(draw);
start(document);
document.addEventListener("hub:theme", () => start(document));
document.addEventListener("htmx:afterSettle", (event) => start(event.target));
addEventListener("resize", () => drawn.forEach((chart) => chart.resize()));
