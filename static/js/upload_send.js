// Talks to the public API: one submission, its archives with progress and retries, its outcomes.
import { csrfToken } from "./frame.js";
import { downloadZip } from "../vendor/client-zip/client-zip.js";

const RETRIES_MS = [1000, 2000, 4000, 8000, 15000, 30000];
const PASSING_STATUSES = new Set([0, 429, 502, 503, 504]);

export class Refused extends Error {
  constructor(status, problem) {
    super(problem?.detail || problem?.title || `The hub answered with status ${status}.`);
    this.status = status;
    this.problem = problem ?? {};
  }
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function request(method, url, { body, headers = {}, onProgress, signal } = {}) {
  return new Promise((resolve, reject) => {
    const call = new XMLHttpRequest();
    call.open(method, url);
    call.setRequestHeader("Accept", "application/json");
    if (method !== "GET") call.setRequestHeader("X-CSRFToken", csrfToken());
    for (const [name, value] of Object.entries(headers)) call.setRequestHeader(name, value);
    call.upload.onprogress = (event) => onProgress?.(event.loaded);
    call.onload = () => {
      const answer = parsed(call.responseText);
      if (call.status < 400) resolve(answer);
      else reject(new Refused(call.status, answer));
    };
    call.onerror = () => reject(new Refused(0, { detail: "The hub cannot be reached." }));
    call.onabort = () => reject(new DOMException("cancelled", "AbortError"));
    if (signal?.aborted) return reject(new DOMException("cancelled", "AbortError"));
    signal?.addEventListener("abort", () => call.abort(), { once: true });
    call.send(body);
  });
}

const pause = (ms, signal) =>
  new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    const goOn = () => (clearTimeout(timer), resolve());
    addEventListener("online", goOn, { once: true });
    signal?.addEventListener("abort", goOn, { once: true });
  });

// The same body twice is kept once by the hub, so that a lost answer may be asked for again.
async function persistently(send, { signal, onRetry }) {
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await send();
    } catch (error) {
      const passing = error instanceof Refused && PASSING_STATUSES.has(error.status);
      if (!passing || attempt >= RETRIES_MS.length || signal?.aborted) throw error;
      onRetry?.(error, RETRIES_MS[attempt]);
      await pause(RETRIES_MS[attempt], signal);
    }
  }
}

function randomKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function openSubmission(api, content, options) {
  const headers = { "Content-Type": "application/json", "Idempotency-Key": randomKey() };
  return persistently(() => request("POST", api, { body: JSON.stringify(content), headers, ...options }), options);
}

async function bodyOf(batch) {
  if (batch.kind !== "pack") return batch.items[0].file;
  const members = batch.items.map((item) => ({ name: item.path, input: item.file, lastModified: item.file.lastModified }));
  return new Blob([await downloadZip(members).blob()], { type: "application/zip" });
}

// Headers hold no letters beyond ASCII; the page shows the file by its own name.
function singleHeaders(item) {
  const name = item.path.replace(/[^ -~]|["\\]/g, "_");
  return { "Content-Type": "application/dicom", "Content-Disposition": `attachment; filename="${name}"` };
}

export async function sendBatch(url, batch, options) {
  const body = await bodyOf(batch);
  const headers = batch.kind === "single" ? singleHeaders(batch.items[0]) : { "Content-Type": "application/zip" };
  return persistently(() => request("POST", url, { body, headers, ...options }), options);
}

export function post(url, options = {}) {
  return persistently(() => request("POST", url, options), options);
}

// All outcomes of a submission, page by page.
export async function* outcomes(url, options = {}) {
  let next = `${url}?limit=200`;
  while (next) {
    const page = await persistently(() => request("GET", next, options), options);
    yield page.results;
    const following = page.next && new URL(page.next, location.href);
    next = following && following.pathname + following.search;
  }
}
