"""Tables too large for memory, read and written by blocks of features.

Files are read, never mapped: mapped pages would count as the process's own memory for as long as they stay. The fast
layout is `features_first` ([features x scans] in C order, or [scans x features] in Fortran order): a block of features
is then one run of the file. In `scans_first` ([scans x features] in C order) it is one run per scan, which is as fast
on a disk that takes runs of 32 KB as well as long ones, and slower on others; no transposition is needed there.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from harmonization_app.algorithms.base import FloatArray, IntArray
from hub.core.errors import InvalidInput

Layout = Literal["scans_first", "features_first"]
# Rows transposed together, so that reads and writes both stay in the cache.
TRANSPOSED_ROWS = 64


class BlockSource(Protocol):
    """Anything with a shape (scans, features) from which a block of features can be read."""

    @property
    def shape(self) -> tuple[int, int]: ...

    def read(self, columns: slice) -> FloatArray:
        """Return the features `columns` as an own C-contiguous array [scans x features of the block]."""
        ...


class BlockTarget(Protocol):
    """Where corrected blocks go; any order of blocks, each once."""

    def write(self, columns: slice, values: FloatArray) -> None: ...


class ArraySource:
    """A table in memory [scans x features]."""

    def __init__(self, values: npt.NDArray[np.floating]) -> None:
        self._values = values

    @property
    def shape(self) -> tuple[int, int]:
        return (self._values.shape[0], self._values.shape[1])

    def read(self, columns: slice) -> FloatArray:
        return np.array(self._values[:, columns], dtype=np.float64, order="C")


class FileSource:
    """A table of floating point numbers in a file, from byte `offset` on.

    Raises InvalidInput when the file is shorter than its shape says or holds other than floating point numbers.
    """

    def __init__(
        self, path: Path, offset: int, shape: tuple[int, int], dtype: np.dtype, layout: Layout
    ) -> None:
        if dtype.kind != "f":
            raise InvalidInput(f"{path.name} holds {dtype}; give floating point numbers, best float64.")
        self._file = path.open("rb", buffering=0)
        needed = offset + shape[0] * shape[1] * dtype.itemsize
        size = os.fstat(self._file.fileno()).st_size
        if size < needed:
            self._file.close()
            raise InvalidInput(
                f"{path.name} has {size} bytes; {shape[0]} scans x {shape[1]} features need {needed}."
            )
        self._offset, self._shape, self._dtype, self._layout = offset, shape, dtype, layout

    @property
    def shape(self) -> tuple[int, int]:
        return self._shape

    def read(self, columns: slice) -> FloatArray:
        scans, features = self._shape
        start, stop, _ = columns.indices(features)
        if self._layout == "features_first":
            block = np.empty((stop - start, scans), dtype=self._dtype)
            self._fill(block, start * scans)
            return _transposed(block)
        block = np.empty((scans, stop - start), dtype=self._dtype)
        for scan in range(scans):
            self._fill(block[scan], scan * features + start)
        return np.ascontiguousarray(block, dtype=np.float64)

    def close(self) -> None:
        self._file.close()

    def _fill(self, part: npt.NDArray[Any], first: int) -> None:
        self._file.seek(self._offset + first * self._dtype.itemsize)
        left = memoryview(part.data).cast("B")
        while left:
            count = self._file.readinto(left)
            if not count:
                raise InvalidInput("The file ended before the table did; it was cut while it was read.")
            left = left[count:]


class SelectedSource:
    """The features of another source at `positions`, in that order."""

    def __init__(self, source: BlockSource, positions: IntArray) -> None:
        self._source, self._positions = source, positions

    @property
    def shape(self) -> tuple[int, int]:
        return (self._source.shape[0], len(self._positions))

    def read(self, columns: slice) -> FloatArray:
        wanted = self._positions[columns]
        values = np.empty((self._source.shape[0], len(wanted)))
        bounds = np.flatnonzero(np.diff(wanted, prepend=-2, append=-2) != 1)
        for first, last in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            start = int(wanted[first])
            values[:, first:last] = self._source.read(slice(start, start + last - first))
        return values


class NpyTarget:
    """A float64 NPY file written by blocks under another name, and renamed when it is whole.

    Workers may write blocks side by side through `reopen`. The space is reserved at the start, so that a full disk is
    found before anything is computed.
    """

    def __init__(self, path: Path, file: IO[bytes], offset: int, shape: tuple[int, int], layout: Layout):
        self.path, self._file, self._offset, self._shape, self._layout = path, file, offset, shape, layout

    @classmethod
    def create(cls, path: Path, shape: tuple[int, int], layout: Layout = "features_first") -> NpyTarget:
        """Return a new file for `shape` (scans, features). Raises InvalidInput when `path` exists or space lacks."""
        if path.exists():
            raise InvalidInput(f"{path.name} exists; harmonized values never overwrite a file. Name another.")
        stored = shape if layout == "scans_first" else shape[::-1]
        with partial_path(path).open("wb") as file:
            header = {"descr": "<f8", "fortran_order": False, "shape": stored}
            np.lib.format.write_array_header_1_0(file, header)
            size = file.tell() + shape[0] * shape[1] * 8
            try:
                os.posix_fallocate(file.fileno(), 0, size)
            except OSError as error:
                partial_path(path).unlink()
                raise InvalidInput(f"{size} bytes for {path.name} are not to be had: {error}.") from error
        return cls.reopen(path, layout)

    @classmethod
    def reopen(cls, path: Path, layout: Layout = "features_first") -> NpyTarget:
        """Return the unfinished file of `path` for further blocks."""
        file = partial_path(path).open("r+b", buffering=0)
        shape, _, _, offset = _read_header(file)
        return cls(path, file, offset, shape if layout == "scans_first" else shape[::-1], layout)

    def write(self, columns: slice, values: FloatArray) -> None:
        scans, features = self._shape
        start, _, _ = columns.indices(features)
        if self._layout == "features_first":
            self._put(_transposed(values), start * scans)
            return
        for scan in range(scans):
            self._put(values[scan], scan * features + start)

    def close(self) -> None:
        """Let go of the file, as a worker does after its block."""
        self._file.close()

    def finish(self) -> None:
        """Make the file durable and give it its name."""
        os.fsync(self._file.fileno())
        self._file.close()
        partial_path(self.path).replace(self.path)

    def discard(self) -> None:
        """Remove the unfinished file."""
        self._file.close()
        partial_path(self.path).unlink(missing_ok=True)

    def _put(self, part: FloatArray, first: int) -> None:
        self._file.seek(self._offset + first * 8)
        left = memoryview(np.ascontiguousarray(part).data).cast("B")
        while left:
            left = left[self._file.write(left) :]


def partial_path(path: Path) -> Path:
    """Return where a file stands until it is whole, in the same folder."""
    return path.with_name(f".{path.name}.partial")


def open_npy(path: Path, layout: Layout = "scans_first") -> FileSource:
    """Return the table of an NPY file; `layout` says which axis of a C-ordered file comes first.

    Raises InvalidInput for a file that is not NPY or not of two dimensions.
    """
    try:
        with path.open("rb") as file:
            shape, fortran, dtype, offset = _read_header(file)
    except ValueError as error:
        raise InvalidInput(f"{path.name} is not an NPY file of a table: {error}.") from error
    if layout == "features_first":
        shape = shape[::-1]
    stored_by_feature = (layout == "features_first") != fortran
    return FileSource(path, offset, shape, dtype, "features_first" if stored_by_feature else "scans_first")


def open_source(table: BlockSource | npt.NDArray[np.floating] | Path) -> BlockSource:
    """Return a source for an NPY file [scans x features], an array, or a memory map, whose file is then read.

    Anything else with `shape` and `read` is its own source. Raises InvalidInput for another thing.
    """
    if isinstance(table, Path):
        return open_npy(table)
    if isinstance(table, np.memmap) and table.ndim == 2 and _is_whole_file_map(table):
        layout: Layout = "scans_first" if table.flags.c_contiguous else "features_first"
        return FileSource(Path(str(table.filename)), table.offset, table.shape, table.dtype, layout)
    if isinstance(table, np.ndarray):
        if table.ndim != 2:
            raise InvalidInput(f"The table has {table.ndim} dimension(s); it must be [scans x features].")
        return ArraySource(table)
    if not hasattr(table, "read") or not hasattr(table, "shape"):
        raise InvalidInput("A table is an NPY file, an array, or an object with `shape` and `read`.")
    return table


def _is_whole_file_map(table: np.memmap) -> bool:
    """Return whether the file holds the map's values at its offset: a view of a map does not keep its place, and a
    map that copies on write keeps changes to itself.
    """
    whole = table.base is not None and not isinstance(table.base, np.ndarray)
    return whole and table.mode != "c" and bool(table.flags.c_contiguous or table.flags.f_contiguous)


def _read_header(file: IO[bytes]) -> tuple[tuple[int, int], bool, np.dtype, int]:
    major = np.lib.format.read_magic(file)[0]
    read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if len(shape) != 2:
        raise ValueError(f"it has {len(shape)} dimension(s), a table has two")
    return (shape[0], shape[1]), fortran, dtype, file.tell()


def _transposed(block: npt.NDArray[np.floating]) -> FloatArray:
    """Return the transpose as an own C-contiguous float64 array, a few rows of `block` at a time."""
    result = np.empty(block.shape[::-1])
    for start in range(0, len(block), TRANSPOSED_ROWS):
        part = slice(start, start + TRANSPOSED_ROWS)
        result[:, part] = block[part].T
    return result
