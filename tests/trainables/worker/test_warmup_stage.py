"""The stage of an automatic warm-up: rules that cannot read their mask do not stop the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.storage.base import Storage
from orchestrator.storage.layout import StageFolders
from tests.support.custom_modules import write_modules
from tests.support.trials import new_storage, tiny_config, tiny_settings, warmup_folder
from trainables.config.keys import canonical, warmup_rule
from trainables.config.trial import TrialConfig, WarmupConfig
from trainables.custom import imports
from trainables.custom.files import CustomFiles
from trainables.worker.stage import Stage
from trainables.worker.trainable import execute_stage

AUTO = tiny_config(warmup_epochs=3, warmup=WarmupConfig(auto=True, window=1, threshold=0.0))
RAISES = tiny_config(method="module:myscores.raises", warmup_epochs=3, warmup=AUTO.warmup)


@pytest.fixture(autouse=True)
def nothing_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "_sources", {})


def run_stage(configs: list[TrialConfig], storage: Storage, folder: Path) -> dict[str, Any]:
    """The last report of the warm-up's stage."""
    custom_files = CustomFiles(modules_path=str(write_modules(folder))).with_digests(configs)
    stage = Stage(
        kind="warmup",
        key=warmup_folder(AUTO, storage).key,
        name="warm-up",
        config=canonical(configs[0]),
        attempt=1,
        lengths=(3,),
        rules=tuple(canonical(warmup_rule(config)) for config in configs),
    )
    settings = tiny_settings(StageFolders(storage, None), custom_files=custom_files, share_warmups=True)
    return execute_stage(stage, settings, lambda report: None)


def test_stage_ends_when_every_rule_has_chosen(tmp_path: Path) -> None:
    storage = new_storage(tmp_path / "runs")
    report = run_stage([AUTO], storage, tmp_path)
    assert (report["status"], report["trained_epochs"], report["position"]) == ("finished", 1, 1)
    assert warmup_folder(AUTO, storage).epochs() == [1]


def test_rule_that_cannot_read_its_mask_leaves_the_others_alone(tmp_path: Path) -> None:
    storage = new_storage(tmp_path / "runs")
    report = run_stage([AUTO, RAISES], storage, tmp_path)
    assert (report["status"], report["position"]) == ("finished", 1)
    (line,) = report["log"]
    assert line.startswith("module:myscores.raises at sparsity 0.9 cannot read its mask: ")
    assert warmup_folder(AUTO, storage).epochs() == [1]


def test_stage_fails_where_no_rule_can_read_its_mask(tmp_path: Path) -> None:
    report = run_stage([RAISES], new_storage(tmp_path / "runs"), tmp_path)
    assert report["status"] == "setting"
    assert "no score" in report["message"]
