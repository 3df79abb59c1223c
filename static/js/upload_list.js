// The list of files on the upload page: counts by outcome, filter, search; thousands of rows stay usable.
const ROWS_AT_ONCE = 200;
const ORDER = ["failed", "quarantined", "rejected", "duplicate", "ignored", "running", "queued", "received", "accepted"];
const WORDS = { queued: "waiting", running: "sending", received: "arrived", failed: "not sent" };

// In the units of the server's pages (Django's filesizeformat).
export function bytes(size) {
  const units = ["bytes", "KB", "MB", "GB", "TB"];
  const power = size ? Math.min(Math.floor(Math.log2(size) / 10), 4) : 0;
  return `${(size / 1024 ** power).toFixed(power ? 1 : 0)} ${units[power]}`;
}

const byName = new Intl.Collator(undefined, { numeric: true });
const csvCell = (text) => `"${String(/^[=+\-@]/.test(text) ? `'${text}` : text).replaceAll('"', '""')}"`;

export class FileList {
  constructor(panel) {
    this.panel = panel;
    this.items = [];
    this.shown = ROWS_AT_ONCE;
    this.only = "";
    this.find = "";
    this.body = panel.querySelector("[data-files]");
    this.more = panel.querySelector("[data-more]");
    this.filters = panel.querySelector("[data-outcomes]");
    this.more.addEventListener("click", () => ((this.shown += ROWS_AT_ONCE), this.draw()));
    this.filters.addEventListener("click", (event) => this.choose(event.target.closest("button")));
    panel.querySelector("[data-find]").addEventListener("input", (event) => {
      this.find = event.target.value.toLowerCase();
      this.draw();
    });
    panel.querySelector("[data-list-csv]").addEventListener("click", () => this.export());
  }

  reset(items) {
    this.items = items;
    this.shown = ROWS_AT_ONCE;
    this.only = "";
    this.panel.querySelector("[data-list-tools]").hidden = items.length < 2;
    this.draw();
  }

  choose(button) {
    if (!button) return;
    this.only = button.dataset.value;
    this.shown = ROWS_AT_ONCE;
    this.draw();
  }

  // Many changes between two frames are drawn once.
  changed() {
    this.pending ??= requestAnimationFrame(() => ((this.pending = null), this.draw()));
  }

  draw() {
    const counts = new Map();
    for (const item of this.items) counts.set(item.state, (counts.get(item.state) ?? 0) + 1);
    this.filters.replaceChildren(this.filterButton("", "all", this.items.length));
    for (const name of ORDER.filter((state) => counts.has(state))) {
      this.filters.append(this.filterButton(name, WORDS[name] ?? name, counts.get(name)));
    }
    const wanted = this.wanted();
    this.body.replaceChildren(...wanted.slice(0, this.shown).map((item) => this.row(item)));
    this.more.hidden = wanted.length <= this.shown;
    this.more.textContent = `Show more (${(wanted.length - this.shown).toLocaleString()} not shown)`;
  }

  wanted() {
    const rank = (item) => ORDER.indexOf(item.state);
    return this.items
      .filter((item) => (!this.only || item.state === this.only) && item.path.toLowerCase().includes(this.find))
      .sort((a, b) => rank(a) - rank(b) || byName.compare(a.path, b.path));
  }

  filterButton(value, word, count) {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.value = value;
    button.className = `btn btn-sm ${value === this.only ? "btn-secondary" : "btn-outline-secondary"}`;
    button.setAttribute("aria-pressed", String(value === this.only));
    button.textContent = `${count.toLocaleString()} ${word}`;
    return button;
  }

  chip(state) {
    const source = this.panel.querySelector(`template[data-state="${state}"]`);
    const chip = source.content.firstElementChild.cloneNode(true);
    if (WORDS[state]) chip.querySelector("span").textContent = WORDS[state];
    return chip;
  }

  row(item) {
    const row = document.createElement("tr");
    const cells = [item.path, bytes(item.size), "", [item.detail, item.action].filter(Boolean).join(" ")];
    for (const text of cells) row.insertCell().textContent = text;
    row.cells[0].className = "file-name";
    row.cells[1].className = "num";
    row.cells[3].className = "words";
    row.cells[2].append(this.chip(item.state));
    return row;
  }

  export() {
    const rows = this.wanted().map((item) => [item.path, item.size, item.sha256, item.state, item.detail, item.action ?? ""]);
    const lines = [["file", "bytes", "sha256", "outcome", "reason", "what to do"], ...rows];
    const text = lines.map((cells) => cells.map(csvCell).join(",")).join("\r\n");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.download = "files.csv";
    link.click();
    URL.revokeObjectURL(link.href);
  }
}
