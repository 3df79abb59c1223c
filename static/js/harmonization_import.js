// The import form, bound by data-import: a person says what each column is before anything is sent. All columns are
// kept in memory and fifty are shown at a time, so that a table of 100,000 columns is described like one of ten.
import { readHead } from "./harmonization_csv.js";

const SHOWN = 50;
const ROLES = [
  ["feature", "feature"],
  ["continuous", "covariate, a number"],
  ["categorical", "covariate, categories"],
  ["other", "label (batch, site, …)"],
];

function field(tag, label, value) {
  const element = document.createElement(tag);
  element.className = tag === "select" ? "form-select form-select-sm" : "form-control form-control-sm";
  element.setAttribute("aria-label", label);
  if (tag === "select") for (const [key, text] of ROLES) element.append(new Option(text, key, false, key === value));
  else element.value = value;
  return element;
}

function row(column, changed) {
  const line = document.createElement("tr");
  line.insertCell().textContent = column.name;
  const value = line.insertCell();
  value.textContent = column.value;
  if (column.odd) {
    const odd = document.createElement("div");
    odd.className = "tone-bad small";
    odd.textContent = column.odd;
    value.append(odd);
  }
  if (column.role === "key") {
    const cell = line.insertCell();
    cell.colSpan = 3;
    cell.textContent = "key of the row";
    return line;
  }
  const role = field("select", `What ${column.name} is`, column.role);
  const unit = field("input", `Unit of ${column.name}`, column.unit);
  const pool = field("input", `Pool of ${column.name}`, column.pool);
  const write = () => {
    Object.assign(column, { role: role.value, unit: unit.value.trim(), pool: pool.value.trim() });
    unit.disabled = pool.disabled = column.role !== "feature";
    changed();
  };
  for (const element of [role, unit, pool]) {
    line.insertCell().append(element);
    element.addEventListener("change", write);
  }
  unit.disabled = pool.disabled = column.role !== "feature";
  return line;
}

function describe(columns) {
  const metadata = { columns: [], covariates: [], metadata: [] };
  for (const { name, role, unit, pool } of columns) {
    if (role === "feature") metadata.columns.push({ name, ...(unit && { unit }), ...(pool && { pool }) });
    else if (role === "other") metadata.metadata.push(name);
    else if (role !== "key") metadata.covariates.push({ name, kind: role });
  }
  return metadata;
}

function listOf(lines, tone) {
  if (!lines.length) return [];
  const list = document.createElement("ul");
  list.className = tone;
  for (const line of lines) list.appendChild(document.createElement("li")).textContent = line;
  return [list];
}

function start(form) {
  const part = (name) => form.querySelector(`[data-${name}]`);
  let columns = [];
  let page = 0;

  const matches = () => {
    const wanted = part("fill-match").value.toLowerCase();
    const role = part("import-role").value;
    return columns.filter(
      (column) => column.name.toLowerCase().includes(wanted) && (!role || (role === "odd" ? column.odd && column.role === "feature" : column.role === role)),
    );
  };

  function count() {
    const metadata = describe(columns);
    part("import-metadata").value = JSON.stringify(metadata);
    const bare = metadata.columns.filter((column) => !column.unit).length;
    const lacking = bare ? `, ${bare.toLocaleString("en")} without a unit` : "";
    const pools = new Set(metadata.columns.map((column) => column.pool).filter(Boolean)).size;
    part("import-count").textContent =
      `${metadata.columns.length.toLocaleString("en")} features${lacking}${pools ? ` in ${pools} pools` : ""}, ${metadata.covariates.length} covariates`;
  }

  function show() {
    const found = matches();
    const last = Math.max(0, Math.ceil(found.length / SHOWN) - 1);
    page = Math.min(page, last);
    part("import-rows").replaceChildren(...found.slice(page * SHOWN, (page + 1) * SHOWN).map((column) => row(column, count)));
    part("import-pages").hidden = last === 0;
    part("import-page").textContent = `${found.length.toLocaleString("en")} columns, page ${page + 1} of ${last + 1}`;
    part("import-back").disabled = page === 0;
    part("import-on").disabled = page === last;
    count();
  }

  async function read(file) {
    const name = form.querySelector("[name=name]");
    name.value ||= file.name.replace(/\.csv$/i, "");
    const head = await readHead(file);
    columns = head.columns;
    page = 0;
    const odd = columns.filter((column) => column.odd).length;
    if (odd) head.faults.push(`${odd.toLocaleString("en")} feature column${odd > 1 ? "s hold" : " holds"} cells that are no numbers (first rows only); choose “faulty” below to see them.`);
    part("import-faults").replaceChildren(...listOf(head.faults, "tone-bad"), ...listOf(head.notes, "muted"));
    part("import-columns").hidden = !columns.length;
    show();
  }

  function fill() {
    for (const column of matches()) {
      if (column.role !== "feature") continue;
      if (part("fill-unit").value) column.unit = part("fill-unit").value.trim();
      if (part("fill-pool").value) column.pool = part("fill-pool").value.trim();
    }
    show();
  }

  // "thickness_left" gives the pool "thickness": what stands before the first separator.
  function poolByName() {
    for (const column of matches()) {
      if (column.role === "feature") column.pool = /^([^_.\- ]+)[_.\- ]/.exec(column.name)?.[1] ?? "";
    }
    show();
  }

  form.querySelector("input[type=file]").addEventListener("change", (event) => {
    if (event.target.files[0]) read(event.target.files[0]);
  });
  for (const name of ["fill-match", "import-role"]) {
    part(name).addEventListener("input", () => { page = 0; show(); });
  }
  part("fill").addEventListener("click", fill);
  part("pool-by-name").addEventListener("click", poolByName);
  part("import-back").addEventListener("click", () => { page -= 1; show(); });
  part("import-on").addEventListener("click", () => { page += 1; show(); });
}

document.querySelectorAll("[data-import]").forEach(start);
