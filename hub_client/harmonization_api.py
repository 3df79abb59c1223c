"""The part of the hub's API that harmonizes: feature sets, algorithm versions, plans and runs."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from hub_client.documents import Comparison, Document, Gate, Run
from hub_client.transport import Transport


class HarmonizationApi(Transport):
    """Every path of the API below `feature-sets`, `algorithm-versions`, `harmonization-plans` and `-runs`."""

    # Feature sets

    def feature_sets(self, trial: str) -> list[Document]:
        return list(self.every("feature-sets/", trial=trial))

    def feature_set(self, identity: str) -> Document:
        return self.get(f"feature-sets/{identity}/")

    def import_features(
        self, trial: str, table: str | bytes, metadata: Mapping[str, Any], *, matrix: bytes = b""
    ) -> Document:
        """Send a feature table (CSV) with its metadata; with `matrix` (NPY), the table holds the rows' labels."""
        fields = {"trial": trial, "name": str(metadata["name"]), "metadata": json.dumps(dict(metadata))}
        content = table.encode() if isinstance(table, str) else table
        files = {"file": ("features.csv", "text/csv", content)}
        if matrix:
            files["matrix"] = ("features.npy", "application/octet-stream", matrix)
        body, content_type = _form(fields, files)
        return self.request("POST", "feature-sets/", body=body, content_type=content_type)

    def build_features(self, trial: str, name: str, metrics: Sequence[str], expected_key: str) -> Document:
        """Make a feature set of QC metrics of an expected series."""
        document = {"trial": trial, "name": name, "metrics": list(metrics), "expected_key": expected_key}
        return self.post("feature-sets/", document)

    def download_features(self, identity: str, target: Path) -> str:
        """Stream a feature set's table into a file and return its SHA-256."""
        return self.download(f"feature-sets/{identity}/data/", target)

    # Algorithm versions

    def algorithm_versions(self, **query: str) -> list[Document]:
        return list(self.every("algorithm-versions/", **query))

    def algorithm_version(self, identity: str) -> Document:
        return self.get(f"algorithm-versions/{identity}/")

    def verify_algorithm_version(self, identity: str) -> Document:
        """Have the reference results reproduced on the hub; answers the job."""
        return self.post(f"algorithm-versions/{identity}/verify/")

    def retire_algorithm_version(self, identity: str, reason: str) -> Document:
        return self.post(f"algorithm-versions/{identity}/retire/", {"reason": reason})

    # Plans

    def plans(self, trial: str, **query: str) -> list[Document]:
        return list(self.every("harmonization-plans/", trial=trial, **query))

    def plan(self, identity: str) -> Document:
        return self.get(f"harmonization-plans/{identity}/")

    def draft_plan(self, trial: str, document: Mapping[str, Any]) -> Document:
        """Make or replace the draft of the plan that `document` names."""
        return self.post("harmonization-plans/", {"trial": trial, "document": dict(document)})

    def check_plan(self, identity: str, feature_set: str) -> Gate:
        """Ask what the gate says of a plan and a feature set, without running anything."""
        return self.post(f"harmonization-plans/{identity}/check/", {"feature_set": feature_set})

    def amend_plan(self, identity: str, reason: str) -> Document:
        return self.post(f"harmonization-plans/{identity}/amend/", {"reason": reason})

    def start_comparison(
        self, feature_set: str, plans: Sequence[str], specifications: Sequence[Mapping[str, Any]] = ()
    ) -> list[Run]:
        """Start an exploratory run of each candidate on one feature set."""
        document = {
            "feature_set": feature_set,
            "plans": list(plans),
            "specifications": [dict(item) for item in specifications],
        }
        return cast(list[Run], self.post("harmonization-plans/compare/", document)["runs"])

    def comparison(self, runs: Sequence[str]) -> Comparison:
        return self.get("harmonization-plans/compare/", runs=",".join(runs))

    # Runs

    def runs(self, trial: str, **query: str) -> list[Run]:
        rows: Iterator[Document] = self.every("harmonization-runs/", trial=trial, **query)
        return cast(list[Run], list(rows))

    def run(self, identity: str) -> Run:
        return self.get(f"harmonization-runs/{identity}/")

    def start_run(self, plan: str, feature_set: str, *, key: str = "") -> Run:
        return self.post("harmonization-runs/", {"plan": plan, "feature_set": feature_set}, key=key)

    def start_exploration(self, specification: Mapping[str, Any], feature_set: str) -> Run:
        """Run a plan's document that is not stored as a plan; always exploratory."""
        document = {"specification": dict(specification), "feature_set": feature_set}
        return self.post("harmonization-runs/", document)

    def cancel_run(self, identity: str) -> Run:
        return self.post(f"harmonization-runs/{identity}/cancel/")

    def rerun(self, identity: str) -> Run:
        """Repeat a run from its stored inputs; the new run says whether the result is equal."""
        return self.post(f"harmonization-runs/{identity}/rerun/")

    def apply_model(self, identity: str, feature_set: str) -> Run:
        """Correct a feature set by the frozen model of a run."""
        return self.post(f"harmonization-runs/{identity}/apply/", {"feature_set": feature_set})

    def add_batch(self, identity: str, feature_set: str, batch: str, reason: str) -> Run:
        """Add a batch to the frozen model of a run; what was done to the other batches stays as it is."""
        document = {"feature_set": feature_set, "batch": batch, "reason": reason}
        return self.post(f"harmonization-runs/{identity}/add-batch/", document)

    def run_data(self, identity: str) -> str:
        """Return the harmonized table as CSV."""
        content = self.get(f"harmonization-runs/{identity}/data/")
        return content.decode() if isinstance(content, bytes) else str(content or "")

    def download_run(self, identity: str, part: str, target: Path) -> str:
        """Stream `data`, `model`, `export` or `report?as=pdf` of a run into a file; return the SHA-256."""
        name, _, query = part.partition("?")
        path = f"harmonization-runs/{identity}/{name}/"
        return self.download(f"{path}?{query}" if query else path, target)


def _form(fields: Mapping[str, str], files: Mapping[str, tuple[str, str, bytes]]) -> tuple[bytes, str]:
    """Return a multipart/form-data body (RFC 7578) and its content type."""
    boundary = f"hub-client-{secrets.token_hex(16)}"
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    for name, (file_name, kind, content) in files.items():
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{file_name}"'
        parts.append(f"{head}\r\nContent-Type: {kind}\r\n\r\n".encode() + content + b"\r\n")
    parts.append(f"--{boundary}--\r\n".encode())
    return b"".join(parts), f"multipart/form-data; boundary={boundary}"
