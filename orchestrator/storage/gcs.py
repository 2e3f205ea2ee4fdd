"""Google Cloud Storage. Written like s3.py, and never run against the real service."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from orchestrator.storage.object_store import ObjectStorage
from orchestrator.storage.object_store_errors import NO_SUCH_BUCKET, ErrorRule

RETRY_TIMEOUT_S = 30.0


class GoogleStorage(ObjectStorage):
    """A prefix of a bucket: gs://BUCKET/PREFIX. Credentials are Google's application default ones."""

    provider = "Google Cloud Storage"
    error_rules = (
        NO_SUCH_BUCKET,
        ErrorRule(
            ("ACCESS_DENIED", "PERMISSION_DENIED", "UNAUTHENTICATED"),
            "no permission ({reason})",
            "give credentials (GOOGLE_APPLICATION_CREDENTIALS, or a service account of the machine) that may list, read, write "
            "and delete there",
        ),
    )

    def _connect(self, scheme: str, host: str | None) -> Any:
        from pyarrow.fs import GcsFileSystem

        return GcsFileSystem(endpoint_override=host, scheme=scheme, retry_time_limit=timedelta(seconds=RETRY_TIMEOUT_S))
