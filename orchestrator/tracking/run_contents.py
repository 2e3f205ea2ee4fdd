"""What an ended run shows of its record, and the artifacts of a sweep's run."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

from orchestrator.tracking.records import RunRecord, RunSpec
from orchestrator.tracking.runs import FAILURE_TAGS, Run, SweepRuns
from trainables.runtime.json_text import parse_json
from trainables.wording import shortened

SYNC_VERSION = 2  # raised when ended runs should look different, so that the next sync brings them up to date
UPLOADED, FORMER_UPLOADED = "drive.artifacts", "drive.artifact."  # tags with the digests of artifacts
LONGEST_TAG = 5000  # characters that every MLflow takes
MOST_MEASUREMENTS = 10  # of latency in a tag


def upload_artifacts(runs: SweepRuns, run: Run, artifacts: Mapping[str, bytes]) -> None:
    """Uploads the artifacts (path -> content) that are new or changed, as a tag tells; earlier versions had one for each."""
    uploaded = uploaded_artifacts(run.tags)
    digests = {path: hashlib.sha256(content).hexdigest()[:12] for path, content in artifacts.items()}
    for path, digest in digests.items():
        if uploaded.get(path) != digest:
            _upload(runs, run, Path(path), artifacts[path])
    if not digests.items() <= uploaded.items():
        noted = uploaded | digests
        while len(text := json.dumps(noted, separators=(",", ":"))) > LONGEST_TAG:
            noted.popitem()  # so that file is uploaded each time
        runs.log(run, tags={UPLOADED: text})
    runs.drop_tags(run, [tag for tag in run.tags if tag.startswith(FORMER_UPLOADED)])


def uploaded_artifacts(tags: Mapping[str, str]) -> dict[str, str]:
    """Path -> digest of the artifacts of a run with these tags."""
    try:
        return dict(parse_json(tags.get(UPLOADED, "{}")))
    except (ValueError, TypeError):
        return {}


def _upload(runs: SweepRuns, run: Run, path: Path, content: bytes) -> None:
    with tempfile.TemporaryDirectory(prefix="drive-sweep-artifact-") as scratch:
        file = Path(scratch, path.name)
        file.write_bytes(content)
        folder = None if path.parent == Path() else path.parent.as_posix()
        runs.client.log_artifact(run.run_id, str(file), folder)


def content_digest(item: RunSpec, record: RunRecord, status: str) -> str:
    """16 hex digits of what an ended run shows; its model, name, params and tags are compared one by one."""
    content = json.dumps([SYNC_VERSION, status, item.role, item.key, record.digest])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def result_tags(record: RunRecord) -> dict[str, str]:
    """Tags of a finished run."""
    result = record.result
    tags = {"drive.attempt": str(result["attempt"]), "drive.model_sha256": result["model_sha256"]}
    optional = {f"drive.{name}": str(result[name]) for name in ("revision", "mask_sha256", "device") if result.get(name)}
    chosen = {f"drive.chosen.{key}": f"{one['value']}: {one['reason']}" for key, one in result.get("choices", {}).items()}
    latency = {"drive.latency": "\n".join(record.latency[-MOST_MEASUREMENTS:])} if record.latency else {}
    return tags | optional | chosen | latency


def failure_tags(record: RunRecord, message: str) -> dict[str, str]:
    """Tags of a failed run; empty without a record and a message, so that those of the run stay."""
    reason = shortened(str(record.error.get("message") or message), 4000)
    kind = str(record.error.get("kind", ""))
    return {tag: value for tag, value in zip(FAILURE_TAGS, (reason, kind), strict=True) if value}
