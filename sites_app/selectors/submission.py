"""Reading submissions, their files and outcomes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from django.db.models import Count, QuerySet, Sum

from sites_app.ingest.names import load_names
from sites_app.models import FileOutcome, Instance, Series, Submission, SubmissionFile, Upload
from sites_app.permissions import sees_original_names


def visible_submissions(user: Any) -> QuerySet[Submission]:
    rows = Submission.objects.visible_to(user)
    return rows.select_related("site", "subject", "visit__definition", "created_by", "profile")  # type: ignore[no-any-return]


def file_counts(submission: Submission) -> dict[str, int]:
    """Return how many files there are of each outcome, and how many series, instances and bytes are stored."""
    outcomes = dict.fromkeys(FileOutcome.values, 0)
    files = SubmissionFile.objects.filter(submission=submission)
    for outcome, count in files.values_list("outcome").annotate(count=Count("id")).order_by():
        outcomes[outcome] = count
    stored = Instance.objects.filter(segment__upload__submission=submission)
    totals = stored.aggregate(instances=Count("id"), bytes=Sum("size"))
    return {
        "files": sum(outcomes.values()),
        **outcomes,
        "series": series_of(submission).count(),
        "instances": totals["instances"],
        "bytes": totals["bytes"] or 0,
        "uploads": submission.uploads.count(),
    }


def series_of(submission: Submission) -> QuerySet[Series]:
    """Return the series to which a submission added instances."""
    return Series.objects.filter(segments__upload__submission=submission).distinct().order_by("pk")


def pending_uploads(submission: Submission) -> int:
    return submission.uploads.filter(state=Upload.State.RECEIVED).count()


def files_of(submission: Submission) -> QuerySet[SubmissionFile]:
    """Return what became of each file, in the order of arrival."""
    return SubmissionFile.objects.filter(submission=submission).order_by("upload_id", "ordinal")


FILE_COLUMNS = (
    "id",
    "upload_id",
    "ordinal",
    "sha256",
    "size",
    "outcome",
    "code",
    "detail",
    "action",
    "instance_id",
)


class OriginalNames:
    """Names of files as received, for those who may see them; each upload's list is read once."""

    def __init__(self, user: Any) -> None:
        self._user = user
        self._allowed: dict[tuple[UUID, UUID], bool] = {}
        self._names: dict[UUID, list[str]] = {}

    def of(self, file: SubmissionFile) -> str | None:
        """Return a file's name; None where it is not known or the user may not see it."""
        scope = (file.trial_id, file.site_id)
        if scope not in self._allowed:
            self._allowed[scope] = sees_original_names(self._user, *scope)
        if file.upload_id not in self._names:
            self._names[file.upload_id] = load_names(file.upload_id) if self._allowed[scope] else []
        names = self._names[file.upload_id]
        return names[file.ordinal] if file.ordinal < len(names) else None


def file_lines(files: Iterable[SubmissionFile], user: Any) -> list[dict[str, Any]]:
    """Return files as plain rows with their original names.

    A submission has thousands of files and is asked for every second: a serializer costs ten times as much.
    """
    names = OriginalNames(user)
    lines = []
    for file in files:
        line = {column: getattr(file, column) for column in FILE_COLUMNS}
        line["upload"] = line.pop("upload_id")
        line["name"] = names.of(file)
        lines.append(line)
    return lines
