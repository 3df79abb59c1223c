// Reads in the browser what a matrix file says of itself, and the names of its columns from a file beside it.
// The server reads both again, strictly; this only spares people a long upload.
import { parseLine } from "./harmonization_csv.js";

const HEAD_BYTES = 64 * 1024;
const TYPES = { "<f8": 8, "<f4": 4 };
// What a form may carry beside its files.
const NAMES_BYTES = 14 * 1024 * 1024;

// Returns {rows, columns, fault} of an NPY file (numpy.lib.format, versions 1 to 3).
export async function readMatrixHead(file) {
  const bytes = new Uint8Array(await file.slice(0, HEAD_BYTES).arrayBuffer());
  const fault = (words) => ({ rows: 0, columns: 0, fault: words });
  if (bytes.length < 12 || String.fromCharCode(...bytes.slice(1, 6)) !== "NUMPY") {
    return fault("The matrix is not an NPY file; write it with numpy.save.");
  }
  const view = new DataView(bytes.buffer);
  const [start, length] = bytes[6] === 1 ? [10, view.getUint16(8, true)] : [12, view.getUint32(8, true)];
  const text = new TextDecoder().decode(bytes.slice(start, start + length));
  const width = TYPES[/'descr':\s*'([^']*)'/.exec(text)?.[1]];
  const shape = /'shape':\s*\((\d+),\s*(\d+)\)/.exec(text);
  if (!width || !shape) return fault("The matrix must be a table [scans × features] of little-endian float64 or float32.");
  if (/'fortran_order':\s*True/.test(text)) {
    return fault("The matrix is in Fortran order; save numpy.ascontiguousarray(values).");
  }
  const [rows, columns] = [Number(shape[1]), Number(shape[2])];
  if (rows === 0 || columns === 0) return fault(`The matrix is empty: ${rows} × ${columns}.`);
  if (file.size !== start + length + rows * columns * width) {
    return fault(`The file does not hold the ${rows} × ${columns} values that it announces; it may be cut off.`);
  }
  return { rows, columns, fault: "" };
}

// Returns {columns, fault}: one line per column of the matrix, "name", "name,unit" or "name,unit,pool".
export async function readNames(file, expected) {
  if (file.size > NAMES_BYTES) return { columns: [], fault: "The names are too many for a page; send the matrix with hub-client." };
  const lines = (await file.text()).replace(/^\uFEFF/, "").split(/\r?\n/).filter((line) => line.trim()).map(parseLine);
  if (lines[0]?.[0].toLowerCase() === "name") lines.shift();
  const columns = lines.map(([name, unit = "", pool = ""]) => ({ name, ...(unit && { unit }), ...(pool && { pool }) }));
  if (expected && columns.length !== expected) {
    return { columns, fault: `The names are ${columns.length.toLocaleString("en")}, the columns of the matrix ${expected.toLocaleString("en")}.` };
  }
  return { columns, fault: "" };
}
