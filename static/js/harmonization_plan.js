// The plan editor, bound by data-plan-editor: form and JSON are one document; every change asks the gate again.
import { firstWord, nameOf, poolsOf, read, shown, valueOf, write } from "./harmonization_plan_document.js";

const editor = document.querySelector("[data-plan-editor]");
const NOBODY = "00000000-0000-0000-0000-000000000000";
const KEYS = ["subject", "visit"];

function options(select, names, chosen, empty) {
  const all = chosen && !names.includes(chosen) ? [...names, chosen] : names;
  const items = all.map((name) => new Option(name, name, false, name === chosen));
  select.replaceChildren(...(empty ? [new Option(empty, "", false, !chosen)] : []), ...items);
}

function choice(label, items, chosen) {
  const select = document.createElement("select");
  select.className = "form-select form-select-sm";
  select.setAttribute("aria-label", label);
  for (const [key, text] of items) select.append(new Option(text, key, false, key === chosen));
  return select;
}

const matches = (item, box) => item.kind === box.dataset.kind && (item.algorithm ?? "") === (box.dataset.algorithm ?? "");

function start() {
  const choices = JSON.parse(document.getElementById("plan-choices").textContent);
  const part = (name) => editor.querySelector(`[data-plan-${name}]`);
  const [source, fault, set] = [part("document"), part("fault"), part("set")];
  const fields = [...editor.querySelectorAll("[data-path]")];
  const boxes = [...editor.querySelectorAll("[data-plan-sensitivity] input")];
  let plan = JSON.parse(source.value);

  const chosenSet = () => choices.find((item) => item.id === set?.value) ?? { columns: {}, features: 0 };
  const askGate = () => part("gate")?.dispatchEvent(new Event("plan-changed"));
  const planned = () => (Array.isArray(plan.sensitivity) ? plan.sensitivity : []);

  function show() {
    const { columns, features } = chosenSet();
    for (const field of fields) showField(field, columns);
    const named = plan.parameters?.features ?? [];
    const pools = (plan.parameters?.pools ?? []).map((pool) => `${pool.name} (${pool.features.length})`);
    part("features").textContent =
      `${named.length || `all ${features}`}${pools.length ? ` in pools ${pools.join(", ")}` : ", one pool"}`;
    showCovariates(columns);
    for (const box of boxes) {
      box.checked = planned().some((item) => matches(item, box));
      box.disabled = box.dataset.algorithm !== undefined && box.dataset.algorithm === plan.algorithm;
    }
  }

  function showField(field, columns) {
    const value = read(plan, field.dataset.path);
    const { options: kind, empty } = field.dataset;
    if (kind === "columns") options(field, [...(empty ? KEYS : []), ...Object.keys(columns)], value, empty ?? "choose a column");
    else if (kind === "batches") options(field, columns[plan.batch] ?? [], value, "none: pooled mean");
    else field.value = shown(field, value);
  }

  function showCovariates(columns) {
    const chosen = new Map((plan.parameters?.covariates ?? []).map((item) => [item.name, item]));
    const names = [...new Set([...Object.keys(columns), ...chosen.keys()])].filter((name) => name !== plan.batch);
    part("covariates").replaceChildren(...names.map((name) => covariateRow(name, columns[name] ?? [], chosen.get(name))));
  }

  function covariateRow(name, levels, item) {
    const row = document.createElement("tr");
    row.insertCell().textContent = name;
    const kinds = [["", "not preserved"], ["continuous", "a number"], ["categorical", "categories"]];
    const kind = choice(`Preserve ${name} as`, kinds, item?.kind ?? "");
    const reference = choice(`Reference level of ${name}`, [], "");
    options(reference, levels, item?.reference ?? "", "first in order");
    reference.disabled = item?.kind !== "categorical";
    for (const select of [kind, reference]) {
      select.addEventListener("change", () => setCovariate(name, kind.value, reference.value));
      row.insertCell().append(select);
    }
    return row;
  }

  function setCovariate(name, kind, reference) {
    const items = [...(plan.parameters?.covariates ?? [])];
    const at = items.findIndex((item) => item.name === name);
    const item = { ...(at < 0 ? {} : items[at]), name, kind };
    if (kind === "categorical" && reference) item.reference = reference;
    else delete item.reference;
    if (kind === "continuous") delete item.levels;
    if (!kind) items.splice(at, at < 0 ? 0 : 1);
    else if (at < 0) items.push(item);
    else items[at] = item;
    changed((next) => write(next, "parameters.covariates", items));
  }

  // What is ticked already keeps its own parameters.
  function setSensitivity(box) {
    const { kind, algorithm } = box.dataset;
    const others = planned().filter((item) => !matches(item, box));
    const items = box.checked ? [...others, { kind, ...(algorithm && { algorithm }) }] : others;
    changed((next) => write(next, "sensitivity", items.length ? items : undefined));
  }

  function changed(change) {
    change(plan);
    source.value = JSON.stringify(plan, null, 2);
    fault.textContent = "";
    show();
    askGate();
  }

  function setField(field) {
    try {
      const value = valueOf(field);
      changed((next) => {
        const follows = field.dataset.path === "title" && !part("name").readOnly && next.name === nameOf(next.title ?? "");
        write(next, field.dataset.path, value);
        if (follows) next.name = nameOf(value);
      });
    } catch (error) {
      fault.textContent = `${field.labels[0]?.textContent ?? field.dataset.path}: cannot be read yet: ${error.message}`;
    }
  }

  async function takePools(poolOf) {
    const answer = await fetch(set.dataset.features.replace(NOBODY, set.value));
    if (!answer.ok) {
      fault.textContent = "The features of the set could not be read. Reload the page and try again.";
      return;
    }
    const { features } = await answer.json();
    changed((next) => {
      write(next, "parameters.features", features.map((column) => column.name));
      write(next, "parameters.pools", poolsOf(features, poolOf));
    });
  }

  for (const field of fields) field.addEventListener("change", () => setField(field));
  for (const box of boxes) box.addEventListener("change", () => setSensitivity(box));
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
  part("take").addEventListener("click", () => takePools((column) => column.pool ?? ""));
  part("words").addEventListener("click", () => takePools((column) => firstWord(column.name)));
  part("all").addEventListener("click", () =>
    changed((next) => {
      write(next, "parameters.features", undefined);
      write(next, "parameters.pools", undefined);
    }));
  show();
  // htmx binds the gate's trigger on load; asking earlier would be heard by nobody.
  addEventListener("load", askGate);
}

if (editor) start();
