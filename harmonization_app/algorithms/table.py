"""A table as gate and fit see it: its labels without the values, and a dataset that keeps what was read of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from harmonization_app.algorithms.base import CovariateValue, Dataset
from hub.core.errors import InvalidInput


class Labelled(Protocol):
    """What is known of a table's scans and features beside the values; a Dataset is one."""

    @property
    def features(self) -> tuple[str, ...]: ...
    @property
    def rows(self) -> tuple[str, ...]: ...
    @property
    def batches(self) -> tuple[str | None, ...]: ...
    @property
    def covariates(self) -> Mapping[str, Sequence[CovariateValue]]: ...
    @property
    def units(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """The labels of a table whose values stay in a file; see Dataset for what each is."""

    features: tuple[str, ...]
    rows: tuple[str, ...]
    batches: tuple[str | None, ...]
    covariates: Mapping[str, Sequence[CovariateValue]] = field(default_factory=dict)
    units: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.units:
            object.__setattr__(self, "units", ("",) * len(self.features))
        if len(self.units) != len(self.features):
            raise InvalidInput(f"units has {len(self.units)} entries for {len(self.features)} features.")
        for name, column in {"batches": self.batches, **self.covariates}.items():
            if len(column) != len(self.rows):
                raise InvalidInput(f"{name} has {len(column)} entries for {len(self.rows)} scans.")


@dataclass(frozen=True, slots=True, eq=False)
class Examined(Dataset):
    """A dataset with a place to keep what one pass over its values gave, so that gate, fit and correction share it.

    Whoever reads `memo` must see by identity and equality that an entry is of these values and this design.
    """

    memo: dict[str, Any] = field(default_factory=dict)


def examined(dataset: Dataset) -> Examined:
    """Return the same table as one that keeps what is read of it; itself when it is one."""
    if isinstance(dataset, Examined):
        return dataset
    return Examined(
        dataset.values, dataset.features, dataset.rows, dataset.batches, dataset.covariates, dataset.units
    )
