// Charts marked data-chart="id": options come as JSON in <script type="application/json" id="id">.
// Colours named "tone:good" and the like follow the theme.
const drawn = new Map();
const NARROW_PX = 480;
const NARROW_NAMES = { width: 130, overflow: "break", fontSize: 10, lineHeight: 11 };
const NARROW_TITLE_PX = 10;
const CHARACTER_PX = 7.5;

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

// On a phone the names of rows and axes take a second line, an axis shows fewer numbers, and a legend scrolls.
function fitted(options, width) {
  if (width >= NARROW_PX) return options;
  const label = (given, name) => {
    if (given.type !== "category") return { ...given.axisLabel, hideOverlap: given.type === "value" };
    return name === "yAxis" ? { ...given.axisLabel, ...NARROW_NAMES } : { ...given.axisLabel, interval: 2 };
  };
  const title = { width: width - 200, overflow: "break", fontSize: NARROW_TITLE_PX, lineHeight: NARROW_TITLE_PX + 1 };
  const fit = { ...options };
  for (const name of ["xAxis", "yAxis"]) {
    const given = options[name];
    if (!given || Array.isArray(given)) continue;
    fit[name] = { ...given, axisLabel: label(given, name), splitNumber: 3, ...(given.name && { nameTextStyle: title }) };
  }
  if (options.xAxis?.name && options.grid) fit.grid = { ...options.grid, bottom: options.grid.bottom + NARROW_TITLE_PX };
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

// A figure that leaves its page says of itself what the page says: primary or exploratory, and of which run.
function ownWords(element) {
  const text = element.closest("[data-figure-note]")?.dataset.figureNote;
  return text ? { graphic: [{ type: "text", right: 4, bottom: 2, style: { text, fontSize: 9, fill: tone("quiet") } }] } : {};
}

function download(parts, type, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(parts, { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// Draws the figure anew without tools and motion, as vectors or as pixels twice as fine as the screen's.
function save(element, form) {
  const place = document.createElement("div");
  const size = { width: element.clientWidth, height: element.clientHeight };
  const dark = document.documentElement.dataset.bsTheme === "dark" ? "dark" : null;
  const chart = window.echarts.init(place, dark, { renderer: form === "svg" ? "svg" : "canvas", ...size });
  chart.setOption({ ...optionsOf(element), backgroundColor: tone("surface"), animation: false, ...ownWords(element) });
  const name = `${element.dataset.name ?? element.dataset.chart}.${form}`;
  if (form === "svg") {
    download([chart.renderToSVGString()], "image/svg+xml", name);
  } else {
    const [, coded] = chart.getDataURL({ type: "png", pixelRatio: 2, backgroundColor: tone("surface") }).split(",");
    download([Uint8Array.from(atob(coded), (sign) => sign.charCodeAt(0))], "image/png", name);
  }
  chart.dispose();
}

function offerSaving(element) {
  if (element.nextElementSibling?.matches(".chart-save")) return;
  const line = document.createElement("div");
  line.className = "chart-save";
  for (const form of ["svg", "png"]) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "btn btn-outline-secondary";
    button.textContent = form.toUpperCase();
    button.setAttribute("aria-label", `Download as ${form.toUpperCase()}: ${element.getAttribute("aria-label") ?? "figure"}`);
    button.addEventListener("click", () => save(element, form));
    line.append(button);
  }
  element.after(line);
}

function optionsOf(element) {
  const source = document.getElementById(element.dataset.chart);
  return named(fitted(resolve(JSON.parse(source.textContent)), element.clientWidth));
}

function draw(element) {
  const source = document.getElementById(element.dataset.chart);
  if (!source || !window.echarts) return;
  drawn.get(element)?.dispose();
  const dark = document.documentElement.dataset.bsTheme === "dark";
  const chart = window.echarts.init(element, dark ? "dark" : null, { renderer: "svg" });
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  chart.setOption({ backgroundColor: "transparent", animation: !still, ...optionsOf(element) });
  chart.on("click", (point) => {
    if (point.data?.href) window.location.assign(point.data.href);
  });
  drawn.set(element, chart);
  offerSaving(element);
}

const start = (root) => root.querySelectorAll("[data-chart]").forEach(draw);
start(document);
document.addEventListener("hub:theme", () => start(document));
document.addEventListener("htmx:afterSettle", (event) => start(event.target));
addEventListener("resize", () => drawn.forEach((chart) => chart.resize()));
