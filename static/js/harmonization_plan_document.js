// The plan's document as the form's fields see it: paths, values, and what a value looks like in a field.
const NAMES = new Set(["name", "title"]);

export function read(document_, path) {
  return path.split(".").reduce((value, key) => value?.[key], document_);
}

export function write(document_, path, value) {
  const keys = path.split(".");
  const last = keys.pop();
  let place = document_;
  for (const key of keys) place = place[key] ??= {};
  if (value === undefined) delete place[last];
  else place[last] = value;
  const empty = keys.length > 0 && keys.join(".") !== "parameters" && Object.keys(place).length === 0;
  if (empty) write(document_, keys.join("."), undefined);
}

// "mm3: 0, 9000" on each line; an end that is left out is open. Names may hold colons, so the last one counts.
function rangesOf(text) {
  const lines = text.split("\n").map((line) => line.trim()).filter(Boolean);
  return Object.fromEntries(lines.map((line) => {
    const [, name, ...ends] = /^(.+):([^:,]*),([^:,]*)$/.exec(line) ?? [];
    const range = ends.map((end) => (end.trim() === "" ? null : Number(end)));
    if (!name || range.some(Number.isNaN)) throw new Error(`"${line}" is not of the form name: least, greatest`);
    return [name.trim(), range];
  }));
}

const linesOf = (ranges) => Object.entries(ranges).map(([name, ends]) => `${name}: ${[].concat(ends).map((end) => end ?? "").join(", ")}`).join("\n");

// Returns the field's value; throws where a field of JSON or of ranges cannot be read yet.
export function valueOf(field) {
  const text = field.value.trim();
  const { kind, path } = field.dataset;
  if (text === "") return NAMES.has(path) ? "" : undefined;
  if (kind === "boolean") return text === "true";
  if (kind === "number") return Number(text);
  if (kind === "list") return text.split(",").map((item) => item.trim()).filter(Boolean);
  if (kind === "ranges") return rangesOf(text);
  if (kind === "json" || (kind === "words" && text.startsWith("{"))) return JSON.parse(text);
  return text;
}

export function shown(field, value) {
  const { kind, path } = field.dataset;
  if (value === undefined || value === null) return kind === "boolean" ? String(!path.endsWith("mean_only")) : "";
  if (Array.isArray(value) && kind === "list") return value.join(", ");
  if (kind === "ranges" && typeof value === "object") return linesOf(value);
  return typeof value === "object" ? JSON.stringify(value, null, kind === "json" ? 2 : 0) : String(value);
}

// "ComBat by scanner, v2" gives "combat-by-scanner-v2", a plan's name of letters, digits and hyphens.
export function nameOf(title) {
  const plain = title.normalize("NFD").replace(/[\u0300-\u036f]/g, "").toLowerCase().replace(/[^a-z0-9]+/g, "-");
  return plain.slice(0, 80).replace(/^-+|-+$/g, "");
}

// "thickness_left" gives "thickness": what stands before the first separator.
export function firstWord(name) {
  return /^([^_.\- ]+)[_.\- ]/.exec(name)?.[1] ?? name;
}

// Features go in pools only where each of them has one; `poolOf` names it.
export function poolsOf(features, poolOf) {
  const pools = new Map();
  for (const column of features) {
    const pool = poolOf(column);
    if (!pools.has(pool)) pools.set(pool, []);
    pools.get(pool).push(column.name);
  }
  if (pools.has("") || pools.size < 2) return undefined;
  return [...pools].map(([name, names]) => ({ name, features: names }));
}
