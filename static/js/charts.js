// Charts marked data-chart="id": options come as JSON in <script type="application/json" id="id">.
// Colours named "tone:good" and the like follow the theme.
const drawn = new Map();
const NARROW_PX = 480;
const NARROW_NAME_PX = 120;
const CHARACTER_PX = 6.5;

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

// On a phone row names leave room for the data, the axis shows fewer numbers, and a legend scrolls.
function fitted(options, width) {
  if (width >= NARROW_PX) return options;
  const label = (axis) => ({ ...axis.axisLabel, hideOverlap: axis.type === "value" });
  const short = (axis) => (axis.type === "category" ? { ...label(axis), width: NARROW_NAME_PX, overflow: "truncate" } : label(axis));
  const axis = (given) =>
    ({ ...given, axisLabel: short(given), splitNumber: 3, nameTextStyle: { width: width - 60, overflow: "truncate" } });
  const fit = { ...options };
  for (const name of ["xAxis", "yAxis"]) if (options[name] && !Array.isArray(options[name])) fit[name] = axis(options[name]);
  if (options.legend) fit.legend = { ...options.legend, type: "scroll" };
  return fit;
}

// Names differ at their ends (left and right, versions of software): what is too long loses its middle.
function shortened(name, width) {
  const room = Math.floor(width / CHARACTER_PX);
  if (name.length <= room) return name;
  const head = Math.floor((room - 1) / 2);
  return `${name.slice(0, head)}…${name.slice(1 + head - room)}`;
}

function named(options) {
  const axis = (given) => {
    const { width, overflow } = given?.axisLabel ?? {};
    if (given?.type !== "category" || overflow !== "truncate" || !width) return given;
    return { ...given, axisLabel: { ...given.axisLabel, formatter: (name) => shortened(String(name), width) } };
  };
  return { ...options, ...(options.xAxis && { xAxis: axis(options.xAxis) }), ...(options.yAxis && { yAxis: axis(options.yAxis) }) };
}

function draw(element) {
  const source = document.getElementById(element.dataset.chart);
  if (!source || !window.echarts) return;
  drawn.get(element)?.dispose();
  const dark = document.documentElement.dataset.bsTheme === "dark";
  const chart = window.echarts.init(element, dark ? "dark" : null, { renderer: "svg" });
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  chart.setOption({ backgroundColor: "transparent", animation: !still, ...named(fitted(resolve(JSON.parse(source.textContent)), element.clientWidth)) });
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
