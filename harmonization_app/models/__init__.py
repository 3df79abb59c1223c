"""Make it comparable, lock it, prove it."""

from harmonization_app.models.algorithm import AlgorithmVersion, AlgorithmVersionState
from harmonization_app.models.data_lock import DataLock, DataLockState
from harmonization_app.models.export import Export, ExportState
from harmonization_app.models.feature_set import FeatureSet
from harmonization_app.models.plan import HarmonizationPlan, HarmonizationRun, RunState

__all__ = [
    "AlgorithmVersion",
    "AlgorithmVersionState",
    "DataLock",
    "DataLockState",
    "Export",
    "ExportState",
    "FeatureSet",
    "HarmonizationPlan",
    "HarmonizationRun",
    "RunState",
]
