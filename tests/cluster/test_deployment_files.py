"""The files of cluster/ against what will read them: Ray's launcher, KubeRay's and compose's schemas, EC2, this project itself.

Schemas are published by their projects; DRIVE_SWEEP_SCHEMAS names the folder that holds them. No cloud, no Kubernetes and no
docker is needed, and none was asked.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import ROOT
from tests.support.cluster_files import CLUSTER, IMAGE, LAUNCHERS, PINS, PROJECT, blocks, python_version, read, texts

pytestmark = pytest.mark.filterwarnings("ignore")  # of libraries that ray imports
KUBERAY = {"rayjob": "rayjobs", "raycluster": "rayclusters"}


def schema(name: str) -> dict[str, Any]:
    folder = os.environ.get("DRIVE_SWEEP_SCHEMAS")
    if not folder or not Path(folder, name).exists():
        pytest.skip(f"needs {name} in the folder that DRIVE_SWEEP_SCHEMAS names")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    document: dict[str, Any] = yaml.load(Path(folder, name).read_text(), loader)
    return document


def complaints(document: Any, schema: dict[str, Any]) -> list[str]:
    from jsonschema import Draft7Validator

    return [f"{error.json_path}: {error.message}" for error in Draft7Validator(schema).iter_errors(document)]


# Ray's cluster launcher


@pytest.mark.parametrize("name", LAUNCHERS)
def test_ray_accepts_a_launcher_file(name: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(read(f"ray/{name}.yaml"))
    validate_config(prepared)
    assert set(prepared["file_mounts"]) >= {"~/.ray/auth_token", "~/drive-sweep/orchestrator", "~/drive-sweep/trainables"}


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_provider_has_only_keys_that_ray_reads(name: str) -> None:
    known = {
        "onprem": {"type", "head_ip", "worker_ips"},
        "aws": {"type", "region", "availability_zone", "cache_stopped_nodes", "use_internal_ips", "security_group", "key_pair"},
        "gcp": {"type", "region", "availability_zone", "project_id", "cache_stopped_nodes", "gcp_credentials"},
    }
    assert set(read(f"ray/{name}.yaml")["provider"]) <= known[name]


def test_nodes_on_aws_are_described_as_ec2_knows_them() -> None:
    """Every key and value of node_config is an argument of run_instances; Ray adds count, tags, network and user data."""
    from botocore.loaders import Loader
    from botocore.model import ServiceModel
    from botocore.validate import ParamValidator

    shape = ServiceModel(Loader().load_service_model("ec2", "service-2")).operation_model("RunInstances").input_shape
    instance_types = ServiceModel(Loader().load_service_model("ec2", "service-2")).shape_for("InstanceType").enum
    for node in read("ray/aws.yaml")["available_node_types"].values():
        report = ParamValidator().validate(node["node_config"] | {"MinCount": 1, "MaxCount": 1}, shape)
        assert not report.has_errors(), report.generate_report()
        unknown = [".".join(path) for path in unknown_members(node["node_config"], shape)]
        assert not unknown, unknown
        assert node["node_config"]["InstanceType"] in instance_types


def unknown_members(value: Any, shape: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Members that a request to AWS does not have, which boto's validation would let pass where they stand in lists."""
    if shape.type_name == "structure":
        for key, inner in value.items():
            if key not in shape.members:
                yield (*path, key)
            else:
                yield from unknown_members(inner, shape.members[key], (*path, key))
    elif shape.type_name == "list":
        for inner in value:
            yield from unknown_members(inner, shape.member, path)
    elif getattr(shape, "enum", None) and value not in shape.enum:
        yield (*path, str(value))


GCP_NODE = {
    "machineType": str,
    "disks": [
        {
            "boot": bool,
            "autoDelete": bool,
            "type": str,
            "initializeParams": {"diskSizeGb": int, "sourceImage": str, "diskType": str},
        }
    ],
    "guestAccelerators": [{"acceleratorType": str, "acceleratorCount": int}],
    "scheduling": {"provisioningModel": str, "instanceTerminationAction": str, "onHostMaintenance": str},
    "metadata": {"items": [{"key": str, "value": str}]},
}


def misfits(value: Any, form: Any, path: str = "") -> list[str]:
    """Where a value has keys or types that the form has not."""
    if isinstance(form, dict) and isinstance(value, dict):
        unknown = [f"{path}.{key}" for key in value if key not in form]
        return unknown + [one for key in value if key in form for one in misfits(value[key], form[key], f"{path}.{key}")]
    if isinstance(form, list) and isinstance(value, list):
        return [one for inner in value for one in misfits(inner, form[0], path)]
    return [] if isinstance(form, type) and isinstance(value, form) else [path]


def test_nodes_on_google_cloud_have_only_fields_of_an_instance() -> None:
    """The part of the Compute Engine's Instance that we use, written down here: its description is not installed."""
    for node in read("ray/gcp.yaml")["available_node_types"].values():
        assert misfits(node["node_config"], GCP_NODE) == []
    scheduling = read("ray/gcp.yaml")["available_node_types"]["worker"]["node_config"]["scheduling"]
    assert scheduling == {
        "provisioningModel": "SPOT",
        "instanceTerminationAction": "DELETE",
        "onHostMaintenance": "TERMINATE",
    }


@pytest.mark.parametrize("name", ["aws", "gcp"])
def test_cloud_cluster_shrinks_to_a_head_that_runs_no_trial(name: str) -> None:
    document = read(f"ray/{name}.yaml")
    kinds = document["available_node_types"]
    assert kinds[document["head_node_type"]]["resources"] == {"CPU": 0, "GPU": 0}
    assert kinds["worker"]["min_workers"] == 0
    assert kinds["worker"]["resources"]["GPU"] > 0
    assert kinds["worker"]["max_workers"] == document["max_workers"]


@pytest.mark.parametrize("name", LAUNCHERS)
def test_nodes_of_a_launcher_have_token_and_packages(name: str) -> None:
    document = read(f"ray/{name}.yaml")
    starts = [document["head_start_ray_commands"][-1], document["worker_start_ray_commands"][-1]]
    for line in starts:
        assert "RAY_AUTH_MODE=token" in line
        check_ray_start(line[line.index("ray start") :])
    assert "--num-cpus=0 --num-gpus=0" in starts[0]
    assert "mlflow.env" in starts[0]
    assert "mlflow.env" not in starts[1]
    setup = document["setup_commands"]
    assert any("--requirement ~/drive-sweep/requirements.txt" in line for line in setup)
    assert any(f"venv --python {python_version()} " in line for line in setup)
    for target, source in document["file_mounts"].items():
        if target.startswith("~/drive-sweep/"):
            assert (ROOT / source).exists(), source
            assert target == f"~/drive-sweep/{source}"


def check_ray_start(line: str) -> None:
    """Every option is one that the installed `ray start` has."""
    from ray.scripts.scripts import start

    known = {option for parameter in start.params for option in (*parameter.opts, *parameter.secondary_opts)}
    used = [word.split("=")[0] for word in line.split() if word.startswith("--")]
    assert used
    assert set(used) <= known, set(used) - known


# Kubernetes


@pytest.fixture(scope="module")
def kuberay() -> dict[str, dict[str, Any]]:
    """Kind -> its schema, with unknown keys made errors."""
    schemas = {}
    for name, plural in KUBERAY.items():
        definition = schema(f"ray.io_{plural}.yaml")
        (version,) = [version for version in definition["spec"]["versions"] if version["name"] == "v1"]
        schemas[name] = strict(version["schema"]["openAPIV3Schema"])
    return schemas


def strict(node: Any) -> Any:
    """A CRD's schema as JSON Schema that lets no unknown key pass."""
    if isinstance(node, list):
        return [strict(inner) for inner in node]
    if not isinstance(node, dict):
        return node
    closed_node = {key: strict(value) for key, value in node.items()}
    closed = "additionalProperties" in closed_node or closed_node.get("x-kubernetes-preserve-unknown-fields")
    if closed_node.get("type") == "object" and "properties" in closed_node and not closed:
        closed_node["additionalProperties"] = False
    if closed_node.get("x-kubernetes-int-or-string"):
        closed_node["type"] = ["integer", "string"]
    return closed_node


@pytest.mark.parametrize("name", KUBERAY)
def test_kuberay_knows_every_key(name: str, kuberay: dict[str, dict[str, Any]]) -> None:
    assert complaints(read(f"kuberay/{name}.yaml"), kuberay[name]) == []


def test_head_becomes_fault_tolerant_by_removing_comment_marks(kuberay: dict[str, dict[str, Any]]) -> None:
    text = (CLUSTER / "kuberay/raycluster.yaml").read_text()
    chosen = yaml.safe_load(re.sub(r"^( *)# (?=(gcsFault| +redis| +valueFrom))", r"\1", text, flags=re.M))
    assert chosen["spec"]["gcsFaultToleranceOptions"]["redisAddress"] == "redis:6379"
    assert complaints(chosen, kuberay["raycluster"]) == []


def cluster_of(name: str) -> dict[str, Any]:
    spec = read(f"kuberay/{name}.yaml")["spec"]
    cluster: dict[str, Any] = spec.get("rayClusterSpec", spec)
    return cluster


@pytest.mark.parametrize("name", KUBERAY)
def test_kubernetes_keeps_the_login_of_mlflow_on_its_head(name: str) -> None:
    spec = cluster_of(name)
    (head,) = spec["headGroupSpec"]["template"]["spec"]["containers"]
    secrets = {one["name"]: one["valueFrom"]["secretKeyRef"]["name"] for one in head["env"]}
    assert secrets == {"MLFLOW_TRACKING_USERNAME": "drive-sweep-mlflow", "MLFLOW_TRACKING_PASSWORD": "drive-sweep-mlflow"}
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert not any("MLFLOW" in text for text in texts(spec["workerGroupSpecs"]))
    assert spec["authOptions"] == {"mode": "token", "secretName": "drive-sweep-ray"}
    assert spec["workerGroupSpecs"][0]["minReplicas"] == 0
    assert spec["enableInTreeAutoscaling"] is True


@pytest.mark.parametrize("name", KUBERAY)
def test_the_pods_and_their_volumes_fit(name: str) -> None:
    spec = cluster_of(name)
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes
            assert container["image"].endswith("/" + IMAGE)
            assert container["resources"]["requests"] == container["resources"]["limits"]
    assert spec["rayVersion"] == PINS["ray"]


def test_both_kuberay_files_describe_the_same_cluster() -> None:
    job, cluster = cluster_of("rayjob"), cluster_of("raycluster")
    assert job["workerGroupSpecs"] == cluster["workerGroupSpecs"]
    assert set(job) == set(cluster)


# Docker


def test_compose_knows_every_key() -> None:
    assert complaints(read("compose.yaml"), schema("compose-spec.json")) == []


def test_services_of_compose_fit_together() -> None:
    document = read("compose.yaml")
    services = document["services"]
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            assert other in services, f"{name} waits for {other}"
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[other], f"{name} waits for the health of {other}, which has no check"
        for volume in service.get("volumes", ()):
            assert volume.split(":")[0] in document["volumes"], f"{name}: {volume}"
        if name != "bucket":
            assert "healthcheck" in service, name
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), f"{name} is open to others: {port}"
        if service["image"].startswith("drive-sweep"):
            assert service["image"] == IMAGE
        else:
            assert re.fullmatch(r"[a-z/]+:v?\d[\d.]*", service["image"]), f"no version: {service['image']}"
        if service.get("command", [""])[:2] == ["ray", "start"]:
            check_ray_start(" ".join(service["command"]))
    assert "MLFLOW" not in " ".join(texts(services["worker"]["environment"]))
    assert services["worker-gpu"]["environment"] == services["worker"]["environment"]


def test_compose_secrets_are_only_in_the_env_file_of_the_readme() -> None:
    text = (CLUSTER / "compose.yaml").read_text()
    wanted = set(re.findall(r"\$\{(\w+):\?", text))
    assert wanted == set(re.findall(r"\$\{?(\w+)", text)), "a variable without a message for when it is missing"
    block = next(block for block in blocks("README.md") if "cluster/.env" in block)
    assert set(re.findall(r"^\s*(\w+)=\$\(", block, re.M)) == wanted
    for service in read("compose.yaml")["services"].values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|TOKEN", name):
                assert value.startswith("${"), name


def test_the_server_of_compose_gets_all_that_its_script_asks_for() -> None:
    needed = re.search(r"for name in (.*?); do", (CLUSTER / "mlflow/serve.sh").read_text().replace("\\\n", " "))
    assert needed
    assert set(needed[1].split()) <= set(read("compose.yaml")["services"]["mlflow"]["environment"])


def dockerfile() -> list[list[str]]:
    text = (CLUSTER / "Dockerfile").read_text().replace("\\\n", " ")
    return [line.split(maxsplit=1) for line in text.splitlines() if line.strip() and not line.startswith("#")]


def test_image_has_python_and_pins_and_runs_unprivileged() -> None:
    lines = dockerfile()
    assert lines[0] == ["FROM", f"python:{python_version()}-slim"]
    installs = [words for words in lines if words[0] == "RUN" and "pip install" in words[1]]
    assert installs
    for _, words in installs:
        assert "--constraint requirements.txt" in words or "--no-deps" in words
    users = [words[1] for words in lines if words[0] == "USER"]
    assert users
    assert all(user not in ("0", "root") for user in users)
    last_root = max(number for number, words in enumerate(lines) if words[0] in ("COPY", "RUN"))
    assert lines.index(["USER", users[0]]) > last_root


def test_what_the_image_copies_is_there_and_reaches_docker() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    kept = [line[1:] for line in ignored if line.startswith("!")]
    assert ignored[0] == "*"
    sources = []
    for instruction, words in dockerfile():
        if instruction == "COPY":
            sources += [word for word in words.split()[:-1] if not word.startswith("--")]
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert any(fnmatch(source, pattern) or source.startswith(pattern + "/") for pattern in kept), f"{source} is ignored"
    for path in kept:
        assert (ROOT / path).exists(), path


def test_what_the_image_installs_is_what_the_project_declares() -> None:
    done = subprocess.run(
        ["python3", CLUSTER / "wanted.py", ROOT / "pyproject.toml"], capture_output=True, text=True, check=True
    )
    wanted = done.stdout.split("\n")[:-1]
    assert wanted == PROJECT["dependencies"] + PROJECT["optional-dependencies"]["cluster"]
    for requirement in wanted:
        name = re.match(r"[a-z0-9.-]+", requirement)
        assert name
        assert name[0].replace(".", "-") in PINS, requirement
