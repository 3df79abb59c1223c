// Reads the head of a CSV in the browser: columns with their first values, and what is plainly wrong with the file.
// The server reads the file again, strictly; this only spares people a long upload.
const HEAD_BYTES = 8 * 1024 * 1024;
const ROWS_READ = 20;
const KEYS = ["subject", "visit"];
const MISSING = /^(|na|n\/a|nan)$/i;
const NUMBER = /^[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?$/i;
const DECIMAL_COMMA = /^[+-]?\d+,\d+$/;
const LABELS = /batch|site|scanner|manufacturer|model|software|version|serial|arm|group/i;
const CONTINUOUS = /^age$|^age_|_age$|years|^icv$|^etiv$|^bmi$/i;
const CATEGORICAL = /^(sex|gender|diagnosis|dx|race|ethnicity|handedness)$/i;

export function parseLine(line) {
  if (!line.includes('"')) return line.split(",").map((cell) => cell.trim());
  const cells = [];
  const pattern = /("(?:[^"]|"")*"|[^,]*)(,|$)/g;
  for (let match = pattern.exec(line); match; match = pattern.exec(line)) {
    const text = match[1];
    cells.push((text.startsWith('"') ? text.slice(1, -1).replaceAll('""', '"') : text).trim());
    if (match[2] === "") break;
  }
  return cells;
}

function delimiterFault(header) {
  if (header.length > 1) return "";
  for (const [sign, name] of [[";", "semicolons"], ["\t", "tabs"], ["|", "bars"]]) {
    if (header[0].includes(sign)) return `The columns are separated by ${name}; export the file with commas.`;
  }
  return "There is one column only; the file needs comma-separated columns.";
}

function headerFaults(header) {
  const wrong = delimiterFault(header);
  if (wrong) return [wrong];
  const faults = [];
  const lacking = KEYS.filter((key) => !header.includes(key));
  if (lacking.length) faults.push(`There is no column ${lacking.join(" and no column ")}; rename the columns with the subject and the visit.`);
  const seen = new Set();
  const twice = header.filter((name) => name && (seen.has(name) || !seen.add(name)));
  if (twice.length) faults.push(`More than one column is called ${twice.slice(0, 5).join(", ")}.`);
  const unnamed = header.filter((name) => !name).length;
  if (unnamed) faults.push(`${unnamed} column${unnamed > 1 ? "s have" : " has"} no name.`);
  return faults;
}

function rowFaults(header, rows, first) {
  const at = rows.findIndex((cells) => cells.length !== header.length);
  if (at < 0) return [];
  const more = rows[at].length > header.length ? " Decimal commas split cells: use a decimal point." : "";
  return [`Row ${first + at} has ${rows[at].length} cells, the header ${header.length}.${more}`];
}

function role(name, values) {
  if (KEYS.includes(name)) return "key";
  if (CATEGORICAL.test(name)) return "categorical";
  if (CONTINUOUS.test(name)) return "continuous";
  if (LABELS.test(name)) return "other";
  const known = values.filter((value) => !MISSING.test(value));
  // A column that holds any number is taken for a measurement, so that the cells that are none are named.
  return known.length && !known.some((value) => NUMBER.test(value) || DECIMAL_COMMA.test(value)) ? "other" : "feature";
}

function oddity(values) {
  const known = values.filter((value) => !MISSING.test(value));
  const comma = known.find((value) => DECIMAL_COMMA.test(value));
  if (comma) return `${comma}: decimal comma; use a decimal point`;
  const text = known.find((value) => !NUMBER.test(value));
  return text === undefined ? "" : `${text.slice(0, 40)}: not a number`;
}

export async function readHead(file) {
  const bytes = new Uint8Array(await file.slice(0, HEAD_BYTES).arrayBuffer());
  if ((bytes[0] === 0xff && bytes[1] === 0xfe) || (bytes[0] === 0xfe && bytes[1] === 0xff)) {
    return { columns: [], faults: ["The file is UTF-16 text; save it as CSV in UTF-8."], notes: [] };
  }
  const notes = [];
  if (bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf) notes.push("The file begins with a byte-order mark, which is skipped.");
  const lines = new TextDecoder().decode(bytes).split(/\r?\n/);
  if (file.size > HEAD_BYTES) lines.pop();
  if (!lines.length) return { columns: [], faults: ["The header is longer than 8 MB; send a matrix by the API."], notes };
  const filled = lines.filter((line) => line.trim());
  const [header, ...rest] = filled.slice(0, ROWS_READ + 2).map(parseLine);
  if (!header) return { columns: [], faults: ["The file is empty; it needs a header row and one row per scan."], notes };
  const faults = headerFaults(header);
  if (faults.length && header.length < 2) return { columns: [], faults, notes };
  const hasUnits = /^units?$/i.test(rest[0]?.[header.indexOf("subject")] ?? "");
  const rows = hasUnits ? rest.slice(1) : rest;
  faults.push(...rowFaults(header, rows, hasUnits ? 3 : 2));
  const columns = header.map((name, index) => {
    const values = rows.map((cells) => cells[index] ?? "");
    const is = role(name, values);
    return { name, value: values[0] ?? "", unit: hasUnits ? (rest[0][index] ?? "") : "", pool: "", role: is, odd: is === "feature" ? oddity(values) : "" };
  });
  const whole = file.size <= HEAD_BYTES;
  return { columns, faults, notes, rows: whole ? filled.length - 1 - Number(hasUnits) : null };
}
