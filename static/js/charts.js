// Charts marked data-chart="id": options come as JSON in <script type="application/json" id="id">.
// Colours named "tone:good" and the like follow the theme.
const drawn = new Map();
const NARROW_PX = 480;
const NARROW_NAMES = { width: 130, overflow: "break", fontSize: 10, lineHeight: 11 };
const NARROW_TITLE_PX = 10;
const NARROW_LINE_PX = 11;
// What one row and one column of a chart need, so that their names do not run into each other.
const ROW_PX = 16;
const COLUMN_PX = 45;
const OUTSIDE_PX = 110;
const pen = document.createElement("canvas").getContext("2d");

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
function fitted(options, width, height) {
  if (width >= NARROW_PX) return options;
  const label = (given, name) => {
    if (given.type !== "category") return { ...given.axisLabel, hideOverlap: given.type === "value" };
    if (name === "xAxis") return { ...given.axisLabel, interval: "auto" };
    const lines = Math.max(1, Math.floor((height - OUTSIDE_PX) / (given.data?.length ?? 1) / NARROW_LINE_PX));
    const size = NARROW_NAMES.fontSize;
    if (lines === 1) {
      const { overflow: _, width: __, ...plain } = given.axisLabel;
      return { ...plain, fontSize: size, formatter: (text) => shortened(String(text), NARROW_NAMES.width, size) };
    }
    // Lines break at words, so that not all of their width is used.
    const room = NARROW_NAMES.width * lines * 0.85;
    return { ...given.axisLabel, ...NARROW_NAMES, formatter: (text) => shortened(String(text), room, size) };
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
function shortened(name, width, size = 12) {
  pen.font = `${size}px sans-serif`;
  if (pen.measureText(name).width <= width) return name;
  for (let kept = name.length - 1; kept > 2; kept -= 1) {
    const text = `${name.slice(0, Math.floor(kept / 2))}…${name.slice(-Math.ceil(kept / 2))}`;
    if (pen.measureText(text).width <= width) return text;
  }
  return "…";
}

// Many columns carry their names upright.
function upright(options, width) {
  const axis = options.xAxis;
  if (axis?.type !== "category" || axis.axisLabel?.interval === undefined) return options;
  if (width / (axis.data?.length ?? 1) >= COLUMN_PX) return options;
  return { ...options, xAxis: { ...axis, axisLabel: { ...axis.axisLabel, rotate: 90, fontSize: 10 } } };
}

function named(options) {
  const axis = (given) => {
    const { width, overflow } = given?.axisLabel ?? {};
    if (given?.type !== "category" || overflow !== "truncate" || !width) return given;
    const { overflow: _, width: __, ...label } = given.axisLabel;
    return { ...given, axisLabel: { ...label, formatter: (name) => shortened(String(name), width, label.fontSize) } };
  };
  return { ...options, ...(options.xAxis && { xAxis: axis(options.xAxis) }), ...(options.yAxis && { yAxis: axis(options.yAxis) }) };
}

// A figure that leaves its page says of itself what the page says: primary or exploratory, and of which run.
function ownWords(element) {
  const text = element.closest("[data-figure-note]")?.dataset.figureNote;
  return text ? { graphic: [{ type: "text", right: 4, bottom: 2, style: { text, fontSize: 9, fill: tone("quiet") } }] } : {};
}

// "primary-run-01a1-volume-putamen-right-by-batch-before": whose figure it is, then what its label says it shows.
function fileName(element) {
  const note = element.closest("[data-figure-note]")?.dataset.figureNote ?? "";
  const [shown] = (element.getAttribute("aria-label") ?? element.dataset.chart).split(/[;:]/);
  return `${note} ${shown}`.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "").slice(0, 120);
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
  const name = `${fileName(element)}.${form}`;
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
  const options = upright(resolve(JSON.parse(source.textContent)), element.clientWidth);
  const rows = options.yAxis?.type === "category" ? (options.yAxis.data?.length ?? 0) : 0;
  const least = rows * ROW_PX + OUTSIDE_PX;
  if (element.clientHeight && element.clientHeight < least) element.style.height = `${least}px`;
  return named(fitted(options, element.clientWidth, element.clientHeight));
}

function draw(element) {
  const source = document.getElementById(element.dataset.chart);
  if (!source || !window.echarts) return;
  drawn.get(element)?.dispose();
  const options = optionsOf(element);
  const dark = document.documentElement.dataset.bsTheme === "dark";
  const chart = window.echarts.init(element, dark ? "dark" : null, { renderer: "svg" });
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  chart.setOption({ backgroundColor: "transparent", animation: !still, ...options });
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
