"""What the hub answers, as types. A document may hold more than what is named here."""

from __future__ import annotations

from typing import Any, TypedDict

Document = dict[str, Any]

FINAL_STATES = frozenset({"accepted", "accepted_with_rejections", "quarantined", "failed", "cancelled"})
FINAL_SERIES_STATES = frozenset({"checked", "failed"})
FINAL_RUN_STATES = frozenset({"succeeded", "failed", "refused", "cancelled"})
FINAL_EXPORT_STATES = frozenset({"succeeded", "failed"})


class Submission(TypedDict):
    id: str
    trial: str
    site: str
    site_code: str
    subject: str
    subject_code: str
    visit: str
    visit_code: str
    state: str
    reason: str
    counts: dict[str, int]
    created_at: str
    finished_at: str | None
    receipt: str | None


class SubmissionFile(TypedDict):
    id: str
    name: str | None
    sha256: str
    size: int
    outcome: str
    code: str
    detail: str
    action: str


class Series(TypedDict):
    id: str
    modality: str
    description: str
    instance_count: int
    state: str
    reason: str


class Verdict(TypedDict):
    rule: str
    parameter: str
    label: str
    expected: Any
    observed: Any
    unit: str
    source: str
    outcome: str
    severity: str
    detail: str
    action: str


class SeriesVerdicts(TypedDict):
    series: str
    state: str
    outcome: str
    reason: str
    expected_series: str
    verdicts: list[Verdict]


class Finding(TypedDict):
    code: str
    severity: str
    message: str
    rows: list[str]
    columns: list[str]
    batches: list[str]


class Gate(TypedDict):
    passes: bool
    findings: list[Finding]


class Run(TypedDict):
    id: str
    kind: str
    mode: str
    model_of: str | None
    rerun_of: str | None
    state: str
    reason: str
    progress: float
    exploratory_reason: str
    gate: list[Finding]
    summary: dict[str, Any]
    diagnostics: dict[str, Any] | None


class ComparisonMeasure(TypedDict):
    title: str
    held_out: bool
    values: list[float | None]
    note: str


class ComparisonDifference(TypedDict):
    first: str
    second: str
    median_sd: float | None
    greatest_sd: float | None
    reason: str


class Comparison(TypedDict):
    exploratory: bool
    finished: bool
    runs: list[Run]
    measures: list[ComparisonMeasure]
    differences: list[ComparisonDifference]


class ChecklistItem(TypedDict):
    code: str
    title: str
    met: bool
    blocking: bool
    count: int
    detail: str


class DataLock(TypedDict):
    id: str
    trial: str
    state: str
    manifest_digest: str


class Export(TypedDict):
    id: str
    trial: str
    locked: bool
    state: str
    reason: str
    progress: float
    package_sha256: str
    size: int
