// The upload page: choose, send, and follow what becomes of each file. Bound by data-upload.
import { digestAll, fromDrop, fromPicker, inBatches } from "./upload_files.js";
import { bytes, FileList } from "./upload_list.js";
import { openSubmission, outcomes, post, Refused, sendBatch } from "./upload_send.js";

const form = document.querySelector("[data-upload]");
const panel = document.querySelector("[data-upload-progress]");
const result = document.querySelector("[data-upload-result]");
const part = (name, root = panel) => root.querySelector(`[data-${name}]`);
const PARALLEL = 2;

let items = [];
let transfer = null;

function choose(more) {
  const known = new Set(items.map((item) => item.path));
  items = [...items, ...more.filter((item) => !known.has(item.path))];
  showChoice();
}

function showChoice() {
  const size = items.reduce((sum, item) => sum + item.size, 0);
  part("chosen", form).hidden = !items.length;
  part("chosen-text", form).textContent = `${items.length.toLocaleString()} file${items.length === 1 ? "" : "s"}, ${bytes(size)}`;
  const lacking = [];
  if (!form.elements.subject.value) lacking.push("a subject");
  if (!form.elements.visit?.value) lacking.push("a visit");
  if (!items.length) lacking.push("the images");
  part("send", form).disabled = lacking.length > 0 || transfer !== null;
  part("hint", form).textContent = lacking.length ? `Choose ${lacking.join(" and ")}.` : "";
}

function showProblem(error) {
  const box = part("problem");
  const title = document.createElement("strong");
  title.textContent = error.problem?.title ?? "The transfer was interrupted";
  const text = document.createElement("div");
  text.textContent = error.message;
  box.replaceChildren(title, text);
  for (const fault of error.problem?.errors ?? []) {
    const line = document.createElement("div");
    line.textContent = `${fault.field}: ${fault.message}`;
    box.append(line);
  }
  box.hidden = false;
  box.scrollIntoView({ block: "nearest" });
}

class Transfer {
  constructor() {
    this.control = new AbortController();
    this.list = new FileList(panel);
    this.items = items;
    this.total = items.reduce((sum, item) => sum + item.size, 0);
    this.sent = new Map();
    this.placed = new Map();
    this.options = { signal: this.control.signal, onRetry: (error, ms) => this.retrying(error, ms) };
  }

  step(words, value = null) {
    part("step").textContent = words;
    if (value === null) part("bar").removeAttribute("value");
    else part("bar").value = value;
  }

  retrying(error, ms) {
    part("figures").textContent = `${error.message} Trying again in ${Math.round(ms / 1000)} s; nothing is lost.`;
  }

  async run() {
    this.list.reset(this.items);
    panel.scrollIntoView({ block: "start" });
    this.step("Reading the files", 0);
    await digestAll(this.items, (done) => this.step("Reading the files", done / this.items.length), () => this.control.signal.aborted);
    this.control.signal.throwIfAborted();
    const submission = await openSubmission(form.dataset.api, this.content(), this.options);
    this.address = `${form.dataset.api}${submission.id}/`;
    this.id = submission.id;
    this.waiting = inBatches(this.items);
    await this.finish();
  }

  async finish() {
    await this.sendAll();
    this.step("Completing");
    await post(`${this.address}complete/`, this.options);
    part("cancel").hidden = true;
    await this.follow();
  }

  content() {
    const site = form.elements.subject.selectedOptions[0].dataset.site;
    const manifest = this.items.filter((item) => item.sha256).map(({ path, sha256, size }) => ({ name: path, sha256, size }));
    const filled = [["scan_date", form.elements.scan_date.value], ["remarks", form.elements.remarks.value.trim()]];
    return {
      trial: form.dataset.trial,
      site,
      subject: form.elements.subject.value,
      visit: form.elements.visit.value,
      channel: "browser",
      form: Object.fromEntries(filled.filter(([, value]) => value)),
      manifest,
    };
  }

  async sendAll() {
    let fault = null;
    const worker = async () => {
      while (this.waiting.length && !fault) {
        const batch = this.waiting.shift();
        await this.send(batch).catch((error) => {
          this.waiting.unshift(batch);
          fault ??= error;
        });
      }
    };
    this.started = performance.now();
    await Promise.all(Array.from({ length: PARALLEL }, worker));
    if (fault) throw fault;
  }

  async send(batch) {
    this.mark(batch, "running");
    const onProgress = (loaded) => (this.sent.set(batch, Math.min(loaded, batch.bytes)), this.showSent());
    try {
      const answer = await sendBatch(`${this.address}files/`, batch, { ...this.options, onProgress });
      this.placed.set(answer.upload, batch);
      this.sent.set(batch, batch.bytes);
      this.mark(batch, "received");
    } catch (error) {
      this.sent.delete(batch);
      this.mark(batch, "failed", error.name === "AbortError" ? "Cancelled." : error.message);
      throw error;
    }
  }

  mark(batch, state, detail = "") {
    for (const item of batch.items) Object.assign(item, { state, detail });
    this.list.changed();
    this.showSent();
  }

  showSent() {
    const sent = [...this.sent.values()].reduce((sum, size) => sum + size, 0);
    const rate = sent / Math.max((performance.now() - this.started) / 1000, 0.2);
    this.step("Sending", this.total ? sent / this.total : 1);
    part("figures").textContent = `${bytes(sent)} of ${bytes(this.total)} sent, ${bytes(rate)}/s`;
  }

  // The fragment renews itself until the submission is final; then the outcomes of the files are read.
  async follow() {
    this.step("The hub reads the files");
    part("figures").textContent = "All files have arrived. You may leave this page; the submission stays.";
    const final = new Promise((resolve) => document.body.addEventListener("hub:submission-final", resolve, { once: true }));
    await window.htmx.ajax("GET", `${form.dataset.pages}${this.id}/progress/`, { target: result, swap: "innerHTML" });
    if (result.querySelector("[data-final]")?.dataset.final !== "yes") await final;
    for await (const page of outcomes(`${this.address}files/`, {})) for (const file of page) this.conclude(file);
    this.list.reset(this.items);
    result.scrollIntoView({ block: "start" });
    this.step("Finished", 1);
    part("figures").textContent = "";
  }

  conclude(file) {
    const batch = this.placed.get(file.upload);
    const whole = batch && batch.kind !== "archive" ? batch.items[file.ordinal] : null;
    const outcome = { state: file.outcome, detail: file.detail, action: file.action, sha256: file.sha256 };
    if (whole) Object.assign(whole, outcome);
    else {
      // Members of an archive are listed in its place.
      this.items = this.items.filter((item) => !batch?.items.includes(item));
      this.items.push({ path: file.name ?? `file ${file.ordinal + 1}`, size: file.size, ...outcome });
    }
  }

  async cancel() {
    this.control.abort();
    if (this.address) await post(`${this.address}cancel/`);
    this.step("Cancelled. Nothing was kept.", 0);
  }
}

function lockForm(locked) {
  form.querySelectorAll("input, select, button").forEach((field) => (field.disabled = locked));
}

async function start(event) {
  event.preventDefault();
  if (transfer) return;
  transfer = new Transfer();
  lockForm(true);
  result.replaceChildren();
  panel.hidden = false;
  part("cancel").hidden = false;
  await attempt(() => transfer.run());
}

// What was not sent can be sent again in the same submission, until it is cancelled.
async function attempt(work) {
  part("problem").hidden = true;
  part("resume").hidden = true;
  try {
    await work();
  } catch (error) {
    if (!transfer.cancelled) {
      transfer.step("Not finished", 0);
      showProblem(error);
      part("resume").hidden = !transfer.address;
      if (transfer.address) return;
    }
  }
  part("cancel").hidden = true;
  release();
}

// Another visit can be sent from the same page; what was sent stays listed until then.
function release() {
  transfer = null;
  items = [];
  lockForm(false);
  showChoice();
}

async function cancel() {
  const stopped = transfer;
  stopped.cancelled = true;
  await stopped.cancel().catch((error) => error instanceof Refused && showProblem(error));
  part("cancel").hidden = part("resume").hidden = true;
  if (transfer === stopped) release();
}

function bind() {
  const drop = part("drop", form);
  form.addEventListener("submit", start);
  form.addEventListener("change", showChoice);
  document.addEventListener("htmx:afterSettle", showChoice);
  part("clear", form).addEventListener("click", () => ((items = []), showChoice()));
  form.querySelectorAll("[data-pick]").forEach((input) => {
    const take = () => (choose(fromPicker(input.files)), (input.value = ""));
    input.addEventListener("change", take);
    // What was chosen while this script was still on its way counts as well.
    if (input.files.length) take();
  });
  drop.addEventListener("dragover", (event) => (event.preventDefault(), drop.classList.add("is-over")));
  drop.addEventListener("dragleave", () => drop.classList.remove("is-over"));
  drop.addEventListener("drop", async (event) => {
    event.preventDefault();
    drop.classList.remove("is-over");
    if (!transfer) choose(await fromDrop(event.dataTransfer));
  });
  part("resume").addEventListener("click", () => attempt(() => transfer.finish()));
  part("cancel").addEventListener("click", cancel);
  addEventListener("beforeunload", (event) => transfer && !part("cancel").hidden && event.preventDefault());
  showChoice();
}

if (form) bind();
