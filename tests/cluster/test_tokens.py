"""Every file that starts a part of a cluster asks for a token or a login."""

from __future__ import annotations

import re

import pytest

from tests import ROOT

FILES = {  # file -> what it says for each thing that listens
    "cluster/compose.yaml": (
        r"RAY_AUTH_MODE: token",
        r"RAY_AUTH_TOKEN: \$\{RAY_AUTH_TOKEN:\?",
        r"MLFLOW_SERVER_ALLOWED_HOSTS: \S",
    ),
    "cluster/kuberay/raycluster.yaml": (r"authOptions: \{mode: token, secretName: \S+\}",),
    "cluster/kuberay/rayjob.yaml": (r"authOptions: \{mode: token, secretName: \S+\}",),
    "cluster/mlflow/serve.sh": (r"--app-name basic-auth", r"MLFLOW_SERVER_ALLOWED_HOSTS"),
    "cluster/ray/aws.yaml": (r"RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=\S+",),
    "cluster/ray/gcp.yaml": (r"RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=\S+",),
    "cluster/ray/onprem.yaml": (r"RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=\S+",),
    "cluster/slurm/sweep.sbatch": (r"RAY_AUTH_TOKEN=\$\(od -An -N32", r"export RAY_AUTH_MODE=token RAY_AUTH_TOKEN"),
}
STARTS = re.compile(
    r"^[^#\n]*(ray.? start|ray, start|serve-mlflow|mlflow server|kind: Ray|start_ray_commands|image: .*mlflow)", re.MULTILINE
)


def test_every_file_that_starts_something_is_listed() -> None:
    files = [one for one in (ROOT / "cluster").rglob("*") if one.is_file() and one.suffix in (".yaml", ".sh", ".sbatch")]
    starting = {one.relative_to(ROOT).as_posix() for one in files if STARTS.search(one.read_text())}
    assert starting == set(FILES)


@pytest.mark.parametrize("file", FILES)
def test_tokens_are_on(file: str) -> None:
    text = "\n".join(line for line in (ROOT / file).read_text().splitlines() if not line.strip().startswith("#"))
    for what in FILES[file]:
        assert re.search(what, text), f"{file}: {what}"
    assert not re.search(r"RAY_AUTH_TOKEN[=:] *['\"]?[0-9a-f]{16}", text)
