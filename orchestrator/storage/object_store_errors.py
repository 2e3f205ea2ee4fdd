"""What an object store's refusal means, and the way out."""

from __future__ import annotations

from trainables.wording import shortened

# What an answer of the store means: codes in pyarrow's message, what is wrong, the way out.
ERROR_CODES = (
    (
        ("NETWORK_CONNECTION",),
        "nothing answers at {endpoint}",
        "is the address right (AWS_ENDPOINT_URL, or endpoint_override in the URI), and is the network up?",
    ),
    (("NO_SUCH_BUCKET",), "there is no bucket {bucket!r} at {endpoint}", "make it, or give another --storage"),
    (
        ("INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "EXPIRED", "CLIENT_TOKEN", "UNRECOGNIZED_CLIENT"),
        "the access key is refused ({said})",
        "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile in ~/.aws",
    ),
    (
        ("ACCESS_DENIED", "PERMISSION_DENIED", "UNAUTHENTICATED"),
        "no permission ({said})",
        "give keys (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile in ~/.aws, or a role of the machine) that may list, "
        "read, write and delete there",
    ),
    (
        ("HTTP status 301", "configured region", "REDIRECT", "AUTHORIZATION_HEADER_MALFORMED"),
        "the bucket is not in region {region!r} ({said})",
        "set AWS_REGION to the bucket's region",
    ),
)
OTHER_TROUBLE = ("it does not work ({said})", "check the URI and the store")


def explain(words: str, bucket: str, endpoint: str, region: str | None) -> str:
    """What is wrong and what to do, of the words of an error from pyarrow."""
    said = (words.partition("AWS Error ")[2] or words).partition(" (Request ID")[0]
    known = ((wrong, way_out) for codes, wrong, way_out in ERROR_CODES if any(code in said for code in codes))
    wrong, way_out = next(known, OTHER_TROUBLE)
    return f"{wrong.format(bucket=bucket, endpoint=endpoint, region=region, said=shortened(said.strip(), 200))}; {way_out}"
