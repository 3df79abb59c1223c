// Collects files from a drop or a choice, folders walked through, and groups them for sending.
const BATCH_BYTES = 48 * 1024 * 1024;
const BATCH_FILES = 500;
const IGNORED_NAMES = new Set([".DS_Store", "Thumbs.db", "desktop.ini"]);

const isArchive = (file) => /\.zip$/i.test(file.name) || file.type === "application/zip";
const isWanted = (file) => !IGNORED_NAMES.has(file.name) && !file.name.startsWith("._");
const asItem = (file, path) => ({ file, path, size: file.size, state: "queued", detail: "", sha256: "" });

async function entriesOf(directory) {
  const reader = directory.createReader();
  const found = [];
  for (;;) {
    // A reader hands out a part at a time; an empty part is the end.
    const part = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!part.length) return found;
    found.push(...part);
  }
}

async function walk(entry, items) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    if (isWanted(file)) items.push(asItem(file, entry.fullPath.replace(/^\//, "")));
  } else if (entry.isDirectory) {
    for (const child of await entriesOf(entry)) await walk(child, items);
  }
}

export async function fromDrop(transfer) {
  // The list of a drop is emptied when the event ends: take every entry before the first wait.
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const items = [];
  for (const entry of entries) await walk(entry, items);
  return items;
}

export function fromPicker(files) {
  return [...files].filter(isWanted).map((file) => asItem(file, file.webkitRelativePath || file.name));
}

// Returns batches {items, kind}: small files together, archives and large files each alone.
export function inBatches(items) {
  const batches = [];
  let open = null;
  for (const item of items) {
    if (isArchive(item.file) || item.size > BATCH_BYTES) {
      batches.push({ items: [item], kind: isArchive(item.file) ? "archive" : "single", bytes: item.size });
      continue;
    }
    if (!open || open.bytes + item.size > BATCH_BYTES || open.items.length >= BATCH_FILES) {
      open = { items: [], kind: "pack", bytes: 0 };
      batches.push(open);
    }
    open.items.push(item);
    open.bytes += item.size;
  }
  return batches;
}

const hex = (buffer) => [...new Uint8Array(buffer)].map((byte) => byte.toString(16).padStart(2, "0")).join("");

// SHA-256 of each file, where the browser offers it (secure contexts) and the file is not too large to hold.
export async function digestAll(items, onProgress, isCancelled) {
  if (!globalThis.crypto?.subtle) return;
  for (const [index, item] of items.entries()) {
    if (isCancelled()) return;
    if (item.size <= 4 * BATCH_BYTES) {
      item.sha256 = hex(await crypto.subtle.digest("SHA-256", await item.file.arrayBuffer()));
    }
    onProgress(index + 1);
  }
}
