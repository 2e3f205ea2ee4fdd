"""The header of a checkpoint or snapshot: its state as JSON, with a digest so that it can be read without the tensors."""

from __future__ import annotations

from trainables.custom.references import sha256
from trainables.runtime.files import safetensors_metadata

STATE, STATE_DIGEST, WHOLE_DIGEST = "state", "state_sha256", "sha256"


def checkpoint_header(state_json: str, whole_digest: str) -> dict[str, str]:
    """The metadata of the file.

    Args:
        whole_digest: over the tensors and the state.
    """
    return {STATE: state_json, STATE_DIGEST: sha256(state_json.encode()), WHOLE_DIGEST: whole_digest}


def read_checkpoint_header(content: bytes) -> tuple[str, str]:
    """The state's JSON and the digest of the whole file. Files of versions without a digest of the state are read too.

    Raises:
        ValueError: the content is no checkpoint, or its state does not match its digest.
    """
    header = safetensors_metadata(content)
    state_json, whole_digest = header.get(STATE), header.get(WHOLE_DIGEST, "")
    if (
        not isinstance(state_json, str)
        or not isinstance(whole_digest, str)
        or set(header) - {STATE, STATE_DIGEST, WHOLE_DIGEST}
    ):
        raise ValueError("it is no checkpoint")
    if header.get(STATE_DIGEST, sha256(state_json.encode())) != sha256(state_json.encode()):
        raise ValueError("its state does not match its SHA-256")
    return state_json, whole_digest
