"""What a block of features gives to the join: its statistics, its cells and its share of the gate's sample.

Parts travel as bytes: NPZ with a JSON header, never pickle.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from harmonization_app.algorithms.base import FloatArray, IntArray
from harmonization_app.algorithms.kernel import Cells, Statistics
from harmonization_app.diagnostics.gate_summary import Summary
from hub.core.canonical import canonical_json
from hub.core.errors import InvalidInput

PART_FORMAT = 1
HEADER = "header"
CELL_ARRAYS = ("missing_rows", "missing_columns", "infinite_rows", "infinite_columns", "doubtful")
STATISTIC_ARRAYS = (
    "intercepts",
    "coefficients",
    "residual_squares",
    "constant",
    "uniform",
    "unusable",
)
SCALING = ("centre", "scale")
COLUMN_LISTS = ("missing_columns", "infinite_columns", "doubtful", "undetermined")


@dataclass(frozen=True, slots=True, eq=False)
class BlockPart:
    """What `join` needs of a block: `columns` among the planned features, their summary, and the sampled ones' values.

    `sampled` are positions among all planned features, `sample` [scans x sampled] their values.
    """

    identity: str
    columns: slice
    summary: Summary
    sampled: IntArray
    sample: FloatArray


def save_part(part: BlockPart) -> bytes:
    """Return a part as NPZ bytes; the same part always gives the same bytes."""
    cells, statistics = part.summary.cells, part.summary.statistics
    complete = not statistics.counts.flags.writeable
    header = {
        "format": PART_FORMAT,
        "identity": part.identity,
        "columns": [part.columns.start, part.columns.stop],
        "missing": cells.missing,
        "complete": complete,
    }
    arrays: dict[str, npt.NDArray[Any]] = {
        HEADER: np.frombuffer(canonical_json(header), dtype=np.uint8),
        "sampled": part.sampled,
        "sample": part.sample,
        "same_as": part.summary.same_as,
        "undetermined": part.summary.undetermined,
        **{f"cells_{name}": getattr(cells, name) for name in CELL_ARRAYS},
        **{f"statistics_{name}": getattr(statistics, name) for name in (*STATISTIC_ARRAYS, *SCALING)},
    }
    arrays["statistics_counts"] = statistics.counts[:, :1] if complete else statistics.counts
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{name: arrays[name] for name in sorted(arrays)})
    return buffer.getvalue()


def load_part(content: bytes) -> BlockPart:
    """Return the stored part. Raises InvalidInput when it cannot be read or is of another format."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        header = json.loads(arrays.pop(HEADER).tobytes())
        if header["format"] != PART_FORMAT:
            raise InvalidInput(
                f"Block format {header['format']} is not known here; this hub reads {PART_FORMAT}."
            )
        return _part_from(header, arrays)
    except (KeyError, TypeError, ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise InvalidInput(
            f"The block's statistics cannot be read: {error!r}. Compute them again."
        ) from error


def _part_from(header: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> BlockPart:
    cells = Cells(header["missing"], **{name: arrays[f"cells_{name}"] for name in CELL_ARRAYS})
    counts = arrays["statistics_counts"]
    if header["complete"]:
        counts = np.broadcast_to(counts, arrays["statistics_intercepts"].shape)
    statistics = Statistics(
        counts=counts,
        **{name: arrays[f"statistics_{name}"] for name in (*STATISTIC_ARRAYS, *SCALING)},
    )
    summary = Summary(cells, statistics, arrays["same_as"], arrays["undetermined"])
    return BlockPart(
        header["identity"], slice(*header["columns"]), summary, arrays["sampled"], arrays["sample"]
    )


class Assembly:
    """The summary of a whole table, put together from its blocks in any order.

    Arrays of the whole table are made once, with the first block; each part can be let go after `add`.
    """

    def __init__(self, identity: str, scans: int, features: int) -> None:
        self._identity, self._scans, self._features = identity, scans, features
        self._ranges: list[tuple[int, int]] = []
        self._arrays: dict[str, npt.NDArray[Any]] = {}
        self._fixed: dict[str, npt.NDArray[Any]] = {}
        self._counts: FloatArray | None = None
        self._missing = 0
        self._rows: dict[str, npt.NDArray[Any]] = {
            name: np.zeros(scans, dtype=np.bool_) for name in ("missing_rows", "infinite_rows")
        }
        self._columns: dict[str, list[IntArray]] = {name: [] for name in COLUMN_LISTS}
        self._alike = np.zeros(scans, dtype=np.int64)
        self._sample: list[tuple[IntArray, FloatArray]] = []

    def add(self, part: BlockPart) -> None:
        """Put one block in its place. Raises InvalidInput when it is of another table or plan."""
        if part.identity != self._identity:
            raise InvalidInput(
                f"The statistics of features {part.columns.start} to {part.columns.stop} are of another table or plan."
            )
        self._ranges.append((part.columns.start, part.columns.stop))
        self._place(part.columns, part.summary.statistics)
        cells = part.summary.cells
        self._missing += cells.missing
        for name, flags in self._rows.items():
            flags |= getattr(cells, name)
        for name in COLUMN_LISTS[:3]:
            self._columns[name].append(getattr(cells, name) + part.columns.start)
        self._columns["undetermined"].append(part.summary.undetermined + part.columns.start)
        # Scans are alike where every block says so: the pair of both classes is the class.
        pairs = self._alike * self._scans + part.summary.same_as
        self._alike = np.unique(pairs, return_inverse=True)[1].astype(np.int64)
        self._sample.append((part.sampled, part.sample))

    def finish(self) -> tuple[Summary, IntArray, FloatArray]:
        """Return the summary, the sampled positions and their values. Raises InvalidInput when blocks lack."""
        end = 0
        for start, stop in sorted(self._ranges):
            if start != end:
                raise InvalidInput(f"The blocks do not tile the features: {end} is followed by {start}.")
            end = stop
        if end != self._features:
            raise InvalidInput(f"The blocks end at feature {end}; the table has {self._features}.")
        columns: dict[str, npt.NDArray[Any]] = {
            name: np.sort(np.concatenate(parts)) for name, parts in self._columns.items()
        }
        undetermined = columns.pop("undetermined")
        cells = Cells(self._missing, **self._rows, **columns)
        counts = self._counts if self._counts is not None else self._complete_counts()
        statistics = Statistics(counts=counts, **self._arrays, **self._fixed)
        first = np.unique(self._alike, return_index=True)[1][self._alike]
        self._sample.sort(key=lambda item: int(item[0][0]) if item[0].size else -1)
        sampled = np.concatenate([item[0] for item in self._sample])
        sample = np.hstack([item[1] for item in self._sample])
        return Summary(cells, statistics, first, undetermined), sampled, sample

    def _place(self, columns: slice, statistics: Statistics) -> None:
        if not self._arrays:
            for name in STATISTIC_ARRAYS:
                array = getattr(statistics, name)
                self._arrays[name] = np.empty((*array.shape[:-1], self._features), dtype=array.dtype)
            self._fixed = {name: getattr(statistics, name) for name in SCALING}
            self._batch_counts = statistics.counts[:, :1].copy()
        for name, whole in self._arrays.items():
            whole[..., columns] = getattr(statistics, name)
        if statistics.counts.flags.writeable and self._counts is None:
            self._counts = self._complete_counts().copy()
        if self._counts is not None:
            self._counts[:, columns] = statistics.counts

    def _complete_counts(self) -> FloatArray:
        return np.broadcast_to(self._batch_counts, (len(self._batch_counts), self._features))
