"""Client of an imaging data hub: the public API as typed Python, and the command line `hub-client`.

Needs nothing but Python's standard library.
"""

from __future__ import annotations

from hub_client.archives import StoredZip
from hub_client.client import HubClient
from hub_client.transport import HubRequestFailed, HubUnreachable
from hub_client.upload import Outcome, Target, upload_folder

__all__ = [
    "HubClient",
    "HubRequestFailed",
    "HubUnreachable",
    "Outcome",
    "StoredZip",
    "Target",
    "upload_folder",
]
