"""A pruning method that is a function of the user's: the same as a built-in one, in keys, checked before training, seeded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.planning.plan import make_plan
from orchestrator.spec.loader import load_spec, resolved, spec_from_resolved
from orchestrator.storage.base import Storage
from tests.support.custom_modules import SCORES, run_custom, sha256_of, write_modules
from tests.support.trials import DIGITS, RUNTIME, run, tiny_config
from trainables.config.options import CustomOptions
from trainables.config.trial import TrialConfig
from trainables.custom.files import CustomFiles
from trainables.data.digits import DIGITS_FACTS
from trainables.data.staging import StagedDataset
from trainables.errors import ConfigError, WorkerLostError
from trainables.preflight.network_case import cases_of
from trainables.preflight.network_checks import examine_cases


def of_method(function: str, **options: Any) -> TrialConfig:
    return tiny_config(method=f"module:myscores.{function}", options=CustomOptions.from_mapping(options))


def test_custom_snip_gives_the_model_of_the_built_in_one(folder: Path, storage: Storage) -> None:
    custom, built_in = run_custom(of_method("snip"), storage, folder), run(tiny_config(method="snip"), storage)
    assert custom["model_sha256"] == built_in["model_sha256"]
    assert custom["own_digests"] == {"method": sha256_of(SCORES)}
    assert custom["config"]["method"] == "module:myscores.snip"


def test_custom_method_with_a_negative_factor_keeps_the_lowest(folder: Path, storage: Storage) -> None:
    config = of_method("scaled", factor=-1.0)
    inverted = tiny_config(method="snip", sanity=replace(tiny_config().sanity, invert=True))
    custom, built_in = run_custom(config, storage, folder), run(inverted, storage)
    assert custom["model_sha256"] == built_in["model_sha256"]
    assert custom["config"]["options"] == {"factor": -1.0}


def test_custom_method_draws_seeded_and_changes_no_network(folder: Path, storage: Storage) -> None:
    first = run_custom(of_method("drawn"), storage, folder)
    again = run_custom(of_method("drawn_after_damage"), storage, folder)
    assert first["model_sha256"] == again["model_sha256"]
    assert first["model_sha256"] != run_custom(replace(of_method("drawn"), seed=1), storage, folder)["model_sha256"]


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        ("raises", "must score weights, got ValueError: no score; correct it"),
        ("for_all_weights", "one score for each"),
        ("as_list", "got list"),
        ("whole", "must return a float tensor"),
    ],
)
def test_wrong_custom_scores_are_refused(function: str, problem: str, folder: Path, storage: Storage) -> None:
    with pytest.raises(ConfigError) as error:
        run_custom(replace(of_method(function), prune_iterations=2), storage, folder)
    assert f"method: module:myscores.{function} " in str(error.value)
    assert problem.replace("one score", "score") in str(error.value)


def test_what_fails_while_a_custom_method_scores_is_not_its_fault(folder: Path, storage: Storage) -> None:
    lines = "from trainables.errors import WorkerLostError\ndef lost(context): raise WorkerLostError('worker 2 of 2 was lost')"
    write_modules(folder, myscores=lines)
    with pytest.raises(WorkerLostError, match="worker 2 of 2 was lost"):
        run_custom(of_method("lost"), storage, folder)


@pytest.mark.parametrize(("function", "problem"), [("raises", "no score"), ("counted", "when it is called again")])
def test_preflight_refuses_wrong_scores_of_a_built_in_network(function: str, problem: str, folder: Path) -> None:
    config = of_method(function)
    custom_files = CustomFiles(modules_path=str(folder)).with_digests([config])
    data = StagedDataset(source=DIGITS)
    (report,) = examine_cases(cases_of([tiny_config(), config]), data, DIGITS_FACTS, RUNTIME, custom_files)
    (finding,) = report.errors
    assert problem in finding.message
    assert finding.hint


def plan_of(text: str, folder: Path, storage: Storage) -> Any:
    (folder / "s.yaml").write_text(text)
    return make_plan(load_spec(str(folder / "s.yaml"), [f"modules_path={folder}"]), storage)


def test_file_of_a_method_is_in_trial_keys_but_not_warmup_keys(folder: Path, storage: Storage) -> None:
    text = (
        "name: m\ndataset: {name: digits}\nmodel: convnet\nwarmup_epochs: 1\nsparsity: 0.9\nbaseline: none\n"
        "method: [snip, {module: myscores.snip}, {module: myscores.scaled, options: {factor: 2}}]\n"
    )
    before = plan_of(text, folder, storage)
    write_modules(folder, myscores=SCORES + "\n")
    after = plan_of(text, folder, storage)
    keys_before, keys_after = ([trial.key for trial in plan.trials] for plan in (before, after))
    assert keys_before[0] == keys_after[0]
    assert len({*keys_before, *keys_after}) == 5
    assert len({trial.warmup_key for plan in (before, after) for trial in plan.trials}) == 1
    assert [trial.name.partition("-w")[0] for trial in after.trials] == ["snip", "myscores.snip", "myscores.scaled"]


def test_each_option_of_a_custom_method_is_a_trial_with_its_name(folder: Path, storage: Storage) -> None:
    methods = ", ".join(f"{{module: myscores.scaled, options: {{factor: {factor}}}}}" for factor in (1, 2))
    text = f"name: m\ndataset: {{name: digits}}\nmodel: convnet\nsparsity: 0.9\nbaseline: none\nmethod: [{methods}]\n"
    plan = plan_of(text, folder, storage)
    assert [trial.name for trial in plan.trials] == ["w00-i001-s0.9-r0-factor1", "w00-i001-s0.9-r0-factor2"]
    assert spec_from_resolved(resolved(plan.spec)) == plan.spec
