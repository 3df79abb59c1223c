// The import form, bound by data-import: reads the head of the CSV here in the browser, so that a person can say
// what each column is before anything is sent. The server reads the file again, strictly.
const HEAD_BYTES = 4 * 1024 * 1024;
const ROLES = [
  ["feature", "feature"],
  ["continuous", "covariate, a number"],
  ["categorical", "covariate, categories"],
  ["other", "label (batch, site, …)"],
];
const LABELS = /batch|site|scanner|manufacturer|model|software|version|serial|arm|group/i;
const CONTINUOUS = /^age$|^age_|_age$|years|^icv$|^etiv$|^bmi$/i;
const CATEGORICAL = /^(sex|gender|diagnosis|dx|race|ethnicity|handedness)$/i;

export function parseLine(line) {
  const cells = [];
  const pattern = /("(?:[^"]|"")*"|[^,]*)(,|$)/g;
  for (let match = pattern.exec(line); match; match = pattern.exec(line)) {
    const text = match[1];
    cells.push((text.startsWith('"') ? text.slice(1, -1).replaceAll('""', '"') : text).trim());
    if (match[2] === "") break;
  }
  return cells;
}

function guess(name, value) {
  if (CATEGORICAL.test(name)) return "categorical";
  if (CONTINUOUS.test(name)) return "continuous";
  if (LABELS.test(name)) return "other";
  return value !== "" && Number.isNaN(Number(value)) ? "other" : "feature";
}

async function readHead(file) {
  const text = (await file.slice(0, HEAD_BYTES).text()).replace(/^\uFEFF/, "");
  const [header = [], second = [], third = []] = text.split(/\r?\n/, 3).map(parseLine);
  const hasUnits = /^units?$/i.test(second[header.indexOf("subject")] ?? "");
  return header.map((name, index) => ({
    name,
    value: (hasUnits ? third : second)[index] ?? "",
    unit: hasUnits ? (second[index] ?? "") : "",
  }));
}

function field(tag, label, value) {
  const element = document.createElement(tag);
  element.className = tag === "select" ? "form-select form-select-sm" : "form-control form-control-sm";
  element.setAttribute("aria-label", label);
  if (tag === "select") for (const [key, text] of ROLES) element.append(new Option(text, key, false, key === value));
  else element.value = value;
  return element;
}

function row(column) {
  const line = document.createElement("tr");
  line.dataset.name = column.name;
  for (const text of [column.name, column.value]) line.insertCell().textContent = text;
  if (column.name === "subject" || column.name === "visit") {
    const cell = line.insertCell();
    cell.colSpan = 3;
    cell.textContent = "key of the row";
    return line;
  }
  line.insertCell().append(field("select", `What ${column.name} is`, guess(column.name, column.value)));
  line.insertCell().append(field("input", `Unit of ${column.name}`, column.unit));
  line.insertCell().append(field("input", `Pool of ${column.name}`, ""));
  return line;
}

function describe(rows) {
  const metadata = { columns: [], covariates: [], metadata: [] };
  for (const line of rows) {
    const [role, unit, pool] = line.querySelectorAll("select, input");
    if (!role) continue;
    const name = line.dataset.name;
    if (role.value === "feature") metadata.columns.push({ name, unit: unit.value.trim(), pool: pool.value.trim() });
    else if (role.value === "other") metadata.metadata.push(name);
    else metadata.covariates.push({ name, kind: role.value });
  }
  return metadata;
}

function start(form) {
  const part = (name) => form.querySelector(`[data-${name}]`);
  const body = part("import-rows");
  const write = () => {
    for (const line of body.rows) {
      const [role, ...rest] = line.querySelectorAll("select, input");
      for (const input of rest) input.disabled = role.value !== "feature";
    }
    const metadata = describe(body.rows);
    part("import-metadata").value = JSON.stringify(metadata);
    const bare = metadata.columns.filter((column) => !column.unit).length;
    const lacking = bare ? `, ${bare} without a unit` : "";
    part("import-count").textContent =
      `${metadata.columns.length} features${lacking}, ${metadata.covariates.length} covariates`;
  };
  part("import-rows").addEventListener("change", write);
  form.querySelector("input[type=file]").addEventListener("change", async (event) => {
    const [file] = event.target.files;
    if (!file) return;
    const name = form.querySelector("[name=name]");
    name.value ||= file.name.replace(/\.csv$/i, "");
    body.replaceChildren(...(await readHead(file)).map(row));
    part("import-columns").hidden = false;
    write();
  });
  part("fill").addEventListener("click", () => {
    const wanted = part("fill-match").value.toLowerCase();
    for (const line of body.rows) {
      const [role, unit, pool] = line.querySelectorAll("select, input");
      if (role?.value !== "feature" || !line.dataset.name.toLowerCase().includes(wanted)) continue;
      if (part("fill-unit").value) unit.value = part("fill-unit").value;
      if (part("fill-pool").value) pool.value = part("fill-pool").value;
    }
    write();
  });
}

document.querySelectorAll("[data-import]").forEach(start);
