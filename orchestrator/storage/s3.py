"""Amazon S3 and the stores that speak its protocol.

The keys are those that the tools of AWS find: environment, ~/.aws, the machine's role.
"""

from __future__ import annotations

import os
from typing import Any

from orchestrator.storage.object_store import ObjectStorage
from orchestrator.storage.object_store_errors import NO_SUCH_BUCKET, ErrorRule

CONNECT_TIMEOUT_S = 5.0
REQUEST_TIMEOUT_S = 20.0  # without a byte
MAX_ATTEMPTS = 5  # of a request, with growing pauses: some seconds where nothing listens
ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
REGION_VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION")
OTHER_STORES_REGION = "us-east-1"  # what a store without regions expects


class S3Storage(ObjectStorage):
    """A prefix of a bucket: s3://BUCKET/PREFIX."""

    provider = "AWS"
    error_rules = (
        ErrorRule(
            ("NETWORK_CONNECTION",),
            "cannot connect to {endpoint}",
            "is the address right (AWS_ENDPOINT_URL, or endpoint_override in the URI), and is the network up?",
        ),
        NO_SUCH_BUCKET,
        ErrorRule(
            ("INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "EXPIRED", "CLIENT_TOKEN", "UNRECOGNIZED_CLIENT"),
            "the access key is refused ({reason})",
            "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile in ~/.aws",
        ),
        ErrorRule(
            ("ACCESS_DENIED",),
            "no permission ({reason})",
            "give keys (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile in ~/.aws, or a role of the machine) that may "
            "list, read, write and delete there",
        ),
        ErrorRule(
            ("HTTP status 301", "configured region", "REDIRECT", "AUTHORIZATION_HEADER_MALFORMED"),
            "the bucket is not in region {region!r} ({reason})",
            "set AWS_REGION to the bucket's region",
        ),
    )

    @classmethod
    def _default_endpoint(cls) -> str:
        return _first_of(ENDPOINT_VARIABLES) or ""

    def _find_region(self) -> None:
        """Takes it from the environment, else asks AWS, since requests to the wrong region fail."""
        self.region = self.region or _first_of(REGION_VARIABLES) or (OTHER_STORES_REGION if self.endpoint else None)
        if self.region is None:
            from pyarrow.fs import resolve_s3_region

            with self._translate_errors():
                self.region = resolve_s3_region(self.bucket)

    def _connect(self, scheme: str, host: str | None) -> Any:
        from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

        return S3FileSystem(
            endpoint_override=host,
            scheme=scheme,
            region=self.region,
            allow_bucket_creation=False,
            allow_delayed_open=True,  # one PUT instead of three requests
            connect_timeout=CONNECT_TIMEOUT_S,
            request_timeout=REQUEST_TIMEOUT_S,
            retry_strategy=AwsStandardS3RetryStrategy(max_attempts=MAX_ATTEMPTS),
        )

    def _with_reason(self, error: OSError) -> OSError:
        """The answer to a HEAD has no reason in it, that to a listing does."""
        if "No response body" not in str(error):
            return error
        from pyarrow.fs import FileSelector

        try:
            self.filesystem.get_file_info(FileSelector(self._path("sweeps"), allow_not_found=True))
        except OSError as reason:
            return reason
        return error


def _first_of(variables: tuple[str, ...]) -> str | None:
    return next((value for name in variables if (value := os.environ.get(name))), None)
