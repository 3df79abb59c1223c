// The import form, bound by data-import: a person says what each column is before anything is sent. All columns are
// kept in memory and fifty are shown at a time, so that a table of 100,000 columns is described like one of ten.
import { readHead } from "./harmonization_csv.js";
import { readMatrixHead, readNames } from "./harmonization_matrix.js";

const SHOWN = 50;
const ROLES = [
  ["feature", "feature"],
  ["continuous", "covariate, a number"],
  ["categorical", "covariate, categories"],
  ["other", "label (batch, site, …)"],
];

function field(tag, label, value, roles = []) {
  const element = document.createElement(tag);
  element.className = tag === "select" ? "form-select form-select-sm" : "form-control form-control-sm";
  element.setAttribute("aria-label", label);
  if (tag === "select") for (const [key, text] of roles) element.append(new Option(text, key, false, key === value));
  else element.value = value;
  return element;
}

function row(column, changed, roles) {
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
  const role = field("select", `What ${column.name} is`, column.role, roles);
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
  const file = (name) => form.querySelector(`input[name=${name}]`).files[0];
  let columns = [];
  let page = 0;
  // With a matrix the CSV holds labels only; the features are the columns of the matrix.
  let matrix = null;
  let names = [];

  const matches = () => {
    const wanted = part("fill-match").value.toLowerCase();
    const role = part("import-role").value;
    return columns.filter(
      (column) => column.name.toLowerCase().includes(wanted) && (!role || (role === "odd" ? column.odd && column.role === "feature" : column.role === role)),
    );
  };

  function count() {
    const metadata = describe(columns);
    if (matrix) Object.assign(metadata, { columns: names, unit: part("matrix-unit").value.trim() });
    part("import-metadata").value = JSON.stringify(metadata);
    if (matrix) {
      part("import-count").textContent =
        `${matrix.columns.toLocaleString("en")} features in the matrix, ${metadata.covariates.length} covariates`;
      return;
    }
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
    part("import-rows").replaceChildren(...found.slice(page * SHOWN, (page + 1) * SHOWN).map((column) => row(column, count, matrix ? ROLES.slice(1) : ROLES)));
    part("import-pages").hidden = last === 0;
    part("import-page").textContent = `${found.length.toLocaleString("en")} columns, page ${page + 1} of ${last + 1}`;
    part("import-back").disabled = page === 0;
    part("import-on").disabled = page === last;
    count();
  }

  async function readMatrix() {
    matrix = file("matrix") ? await readMatrixHead(file("matrix")) : null;
    const given = matrix && part("matrix-names").files[0];
    const found = given ? await readNames(given, matrix.columns) : { columns: [], fault: "" };
    names = found.columns;
    part("import-matrix").hidden = !matrix;
    part("matrix-unit").required = Boolean(matrix) && !(names.length && names.every((column) => column.unit));
    for (const element of form.querySelectorAll("[data-import-features]")) element.hidden = Boolean(matrix);
    return matrix ? [matrix.fault, found.fault].filter(Boolean) : [];
  }

  async function read() {
    const faults = await readMatrix();
    const table = file("file");
    if (!table) {
      part("import-faults").replaceChildren(...listOf(faults, "tone-bad"));
      return;
    }
    const name = form.querySelector("[name=name]");
    name.value ||= table.name.replace(/\.csv$/i, "");
    const head = await readHead(table);
    head.faults.unshift(...faults);
    columns = head.columns.map((column) => (matrix && column.role === "feature" ? { ...column, role: "other", odd: "" } : column));
    page = 0;
    if (matrix && head.rows && matrix.rows && head.rows !== matrix.rows) {
      head.faults.push(`The CSV labels ${head.rows.toLocaleString("en")} rows, the matrix has ${matrix.rows.toLocaleString("en")}.`);
    }
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

  for (const input of form.querySelectorAll("input[type=file]")) input.addEventListener("change", read);
  part("matrix-unit").addEventListener("input", count);
  form.addEventListener("htmx:xhr:progress", (event) => {
    const bar = part("import-progress");
    bar.hidden = !event.detail.lengthComputable || event.detail.loaded === event.detail.total;
    Object.assign(bar, { max: event.detail.total, value: event.detail.loaded });
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
