// Tables marked data-table: sort by a click on a heading, filter by words, export what is shown as CSV.
function cellValue(row, index) {
  const cell = row.cells[index];
  return cell?.dataset.value ?? cell?.textContent.trim() ?? "";
}

function compare(a, b) {
  const [x, y] = [Number(a), Number(b)];
  if (a !== "" && b !== "" && !Number.isNaN(x) && !Number.isNaN(y)) return x - y;
  return a.localeCompare(b, undefined, { numeric: true });
}

function sortBy(table, heading) {
  const index = heading.cellIndex;
  const descending = heading.getAttribute("aria-sort") === "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const rows = [...table.tBodies[0].rows];
  rows.sort((a, b) => compare(cellValue(a, index), cellValue(b, index)) * (descending ? -1 : 1));
  table.tBodies[0].append(...rows);
}

function filterBy(table, words) {
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const row of table.tBodies[0].rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !wanted.every((word) => text.includes(word));
    shown += row.hidden ? 0 : 1;
  }
  return shown;
}

// A cell that a spreadsheet would run as a formula is made text.
function csvCell(text) {
  const folded = text.replace(/\s+/g, " ").trim();
  const safe = /^[=+\-@\t\r]/.test(folded) && Number.isNaN(Number(folded)) ? `'${folded}` : folded;
  return `"${safe.replaceAll('"', '""')}"`;
}

function exportCsv(table, name) {
  const rows = [table.tHead.rows[0], ...[...table.tBodies[0].rows].filter((row) => !row.hidden)];
  const lines = rows.map((row) => [...row.cells].map((cell) => csvCell(cell.textContent)).join(","));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([lines.join("\r\n")], { type: "text/csv" }));
  link.download = `${name}.csv`;
  link.click();
  URL.revokeObjectURL(link.href);
}

function enhance(table) {
  for (const heading of table.tHead?.rows[0]?.cells ?? []) {
    if (heading.dataset.sortable === "no" || heading.querySelector("button")) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => sortBy(table, heading));
  }
  const tools = document.querySelector(`[data-table-tools="${table.id}"]`);
  if (!tools) return;
  const count = tools.querySelector("[data-shown]");
  tools.querySelector("input[type=search]")?.addEventListener("input", (event) => {
    const shown = filterBy(table, event.target.value);
    if (count) count.textContent = `${shown} shown`;
  });
  tools.querySelector("[data-export]")?.addEventListener("click", () => exportCsv(table, table.id));
}

const start = (root) => root.querySelectorAll("table[data-table]").forEach(enhance);
start(document);
document.addEventListener("htmx:afterSettle", (event) => start(event.target));
