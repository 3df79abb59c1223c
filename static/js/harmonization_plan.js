// The plan editor, bound by data-plan-editor: form and JSON are one document; every change asks the gate again.
const editor = document.querySelector("[data-plan-editor]");

function read(document_, path) {
  return path.split(".").reduce((value, key) => value?.[key], document_);
}

function write(document_, path, value) {
  const keys = path.split(".");
  const last = keys.pop();
  let place = document_;
  for (const key of keys) place = place[key] ??= {};
  if (value === undefined) delete place[last];
  else place[last] = value;
  if (keys.length > 1 && Object.keys(place).length === 0) write(document_, keys.join("."), undefined);
}

function valueOf(field) {
  if (field.value === "") return field.dataset.path === "name" || field.dataset.path === "title" ? "" : undefined;
  if (field.dataset.kind === "boolean") return field.value === "true";
  return field.dataset.kind === "number" ? Number(field.value) : field.value;
}

function options(select, names, chosen, empty) {
  const all = chosen && !names.includes(chosen) ? [...names, chosen] : names;
  const items = all.map((name) => new Option(name, name, false, name === chosen));
  select.replaceChildren(...(empty ? [new Option(empty, "", false, !chosen)] : []), ...items);
}

function start() {
  const choices = JSON.parse(document.getElementById("plan-choices").textContent);
  const source = editor.querySelector("[data-plan-document]");
  const fault = editor.querySelector("[data-plan-fault]");
  const set = editor.querySelector("[data-plan-set]");
  const fields = [...editor.querySelectorAll("[data-path]")];
  let plan = JSON.parse(source.value);

  const chosenSet = () => choices.find((item) => item.id === set?.value) ?? { columns: {}, features: 0, pools: {} };
  const askGate = () => editor.querySelector("[data-plan-gate]")?.dispatchEvent(new Event("plan-changed"));

  function show() {
    const { columns, features } = chosenSet();
    for (const field of fields) {
      const value = read(plan, field.dataset.path);
      if (field.dataset.options === "columns") options(field, Object.keys(columns), value, "choose a column");
      else if (field.dataset.options === "batches") options(field, columns[plan.batch] ?? [], value, "none: pooled mean");
      else field.value = value === undefined || value === null ? (field.dataset.kind === "boolean" ? String(field.dataset.path.endsWith("mean_only") ? false : true) : "") : String(value);
    }
    const named = plan.parameters?.features ?? [];
    const pools = (plan.parameters?.pools ?? []).map((pool) => `${pool.name} (${pool.features.length})`);
    editor.querySelector("[data-plan-features]").textContent =
      `${named.length || `all ${features}`}${pools.length ? ` in pools ${pools.join(", ")}` : ", one pool"}`;
    showCovariates(columns);
  }

  function showCovariates(columns) {
    const body = editor.querySelector("[data-plan-covariates]");
    const chosen = new Map((plan.parameters?.covariates ?? []).map((item) => [item.name, item]));
    const names = [...new Set([...Object.keys(columns), ...chosen.keys()])].filter((name) => name !== plan.batch);
    body.replaceChildren(...names.map((name) => covariateRow(name, columns[name] ?? [], chosen.get(name))));
  }

  function covariateRow(name, levels, item) {
    const row = document.createElement("tr");
    row.insertCell().textContent = name;
    const kind = document.createElement("select");
    kind.className = "form-select form-select-sm";
    kind.setAttribute("aria-label", `Preserve ${name} as`);
    for (const [key, text] of [["", "not preserved"], ["continuous", "a number"], ["categorical", "categories"]]) {
      kind.append(new Option(text, key, false, key === (item?.kind ?? "")));
    }
    const reference = document.createElement("select");
    reference.className = "form-select form-select-sm";
    reference.setAttribute("aria-label", `Reference level of ${name}`);
    options(reference, levels, item?.reference ?? "", "first in order");
    reference.disabled = item?.kind !== "categorical";
    for (const select of [kind, reference]) {
      select.addEventListener("change", () => setCovariate(name, kind.value, reference.value));
    }
    row.insertCell().append(kind);
    row.insertCell().append(reference);
    return row;
  }

  function setCovariate(name, kind, reference) {
    const items = [...(plan.parameters?.covariates ?? [])];
    const at = items.findIndex((item) => item.name === name);
    const former = at < 0 ? {} : items[at];
    const item = { ...former, name, kind };
    if (kind === "categorical" && reference) item.reference = reference;
    else delete item.reference;
    if (kind === "continuous") delete item.levels;
    if (!kind) items.splice(at, at < 0 ? 0 : 1);
    else if (at < 0) items.push(item);
    else items[at] = item;
    changed((next) => write(next, "parameters.covariates", items));
  }

  function changed(change) {
    change(plan);
    source.value = JSON.stringify(plan, null, 2);
    fault.textContent = "";
    show();
    askGate();
  }

  async function takePools() {
    const answer = await fetch(set.dataset.features.replace("00000000-0000-0000-0000-000000000000", set.value));
    if (!answer.ok) {
      fault.textContent = "The features of the set could not be read. Reload the page and try again.";
      return;
    }
    const { features } = await answer.json();
    const pools = new Map();
    for (const column of features) {
      if (!column.pool) continue;
      if (!pools.has(column.pool)) pools.set(column.pool, []);
      pools.get(column.pool).push(column.name);
    }
    const pooled = features.every((column) => column.pool);
    changed((next) => {
      write(next, "parameters.features", features.map((column) => column.name));
      const list = [...pools].map(([name, names]) => ({ name, features: names }));
      write(next, "parameters.pools", pooled && list.length > 1 ? list : undefined);
    });
  }

  for (const field of fields) {
      const value = read(plan, field.dataset.path);
      if (field.dataset.options === "columns") options(field, Object.keys(columns), value, "choose a column");
      else if (field.dataset.options === "batches") options(field, columns[plan.batch] ?? [], value, "none: pooled mean");
      else field.value = value === undefined || value === null ? (field.dataset.kind === "boolean" ? String(field.dataset.path.endsWith("mean_only") ? false : true) : "") : String(value);
    }
    const named = plan.parameters?.features ?? [];
    const pools = (plan.parameters?.pools ?? []).map((pool) => `${pool.name} (${pool.features.length})`);
    editor.querySelector("[data-plan-features]").textContent =
      `${named.length || `all ${features}`}${pools.length ? ` in pools ${pools.join(", ")}` : ", one pool"}`;
    showCovariates(columns);
  }

  function showCovariates(columns) {
    const body = editor.querySelector("[data-plan-covariates]");
    const chosen = new Map((plan.parameters?.covariates ?? []).map((item) => [item.name, item]));
    const names = [...new Set([...Object.keys(columns), ...chosen.keys()])].filter((name) => name !== plan.batch);
    body.replaceChildren(...names.map((name) => covariateRow(name, columns[name] ?? [], chosen.get(name))));
  }

  function covariateRow(name, levels, item) {
    const row = document.createElement("tr");
    row.insertCell().textContent = name;
    const kind = document.createElement("select");
    kind.className = "form-select form-select-sm";
    kind.setAttribute("aria-label", `Preserve ${name} as`);
    for (const [key, text] of [["", "not preserved"], ["continuous", "a number"], ["categorical", "categories"]]) {
      kind.append(new Option(text, key, false, key === (item?.kind ?? "")));
    }
    const reference = document.createElement("select");
    reference.className = "form-select form-select-sm";
    reference.setAttribute("aria-label", `Reference level of ${name}`);
    options(reference, levels, item?.reference ?? "", "first in order");
    reference.disabled = item?.kind !== "categorical";
    for (const select of [kind, reference]) {
      select.addEventListener("change", () => setCovariate(name, kind.value, reference.value));
    }
    row.insertCell().append(kind);
    row.insertCell().append(reference);
    return row;
  }

  function setCovariate(name, kind, reference) {
    const items = [...(plan.parameters?.covariates ?? [])];
    const at = items.findIndex((item) => item.name === name);
    const former = at < 0 ? {} : items[at];
    const item = { ...former, name, kind };
    if (kind === "categorical" && reference) item.reference = reference;
    else delete item.reference;
    if (kind === "continuous") delete item.levels;
    if (!kind) items.splice(at, at < 0 ? 0 : 1);
    else if (at < 0) items.push(item);
    else items[at] = item;
    changed((next) => write(next, "parameters.covariates", items));
  }

  function changed(change) {
    change(plan);
    source.value = JSON.stringify(plan, null, 2);
    fault.textContent = "";
    show();
    askGate();
  }

  function takePools() {
    const { features } = chosenSet();
    const pools = new Map();
    for (const column of features) {
      if (column.pool) pools.set(column.pool, [...(pools.get(column.pool) ?? []), column.name]);
    }
    const pooled = [...pools.values()].flat().length === features.length;
    changed((next) => {
      write(next, "parameters.features", features.map((column) => column.name));
      const list = [...pools].map(([name, names]) => ({ name, features: names }));
      write(next, "parameters.pools", pooled && list.length > 1 ? list : undefined);
    });
  }

  for (const field of fields) {
    field.addEventListener("change", () => changed((next) => write(next, field.dataset.path, valueOf(field))));
  }
  source.addEventListener("input", () => {
    try {
      plan = JSON.parse(source.value);
      fault.textContent = "";
      show();
      askGate();
    } catch (error) {
      fault.textContent = `Not valid JSON yet: ${error.message}`;
    }
  });
  set?.addEventListener("change", () => { show(); askGate(); });
  editor.querySelector("[data-plan-take]").addEventListener("click", takePools);
  editor.querySelector("[data-plan-all]").addEventListener("click", () =>
    changed((next) => {
      write(next, "parameters.features", undefined);
      write(next, "parameters.pools", undefined);
    }));
  show();
  // htmx binds the gate's trigger on load; asking earlier would be heard by nobody.
  addEventListener("load", askGate);
}

if (editor) start();
