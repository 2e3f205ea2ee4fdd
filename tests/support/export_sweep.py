"""A sweep that has really finished: two seeds of 2:4 masks and a dense baseline, on few digits."""

from __future__ import annotations

from pathlib import Path

from orchestrator.export.selection import Selection, select_trial
from orchestrator.export.trial_model import trial_model
from orchestrator.spec.grid import expand
from orchestrator.spec.loader import load_spec, spec_from_resolved
from orchestrator.spec.schema import SweepSpec
from orchestrator.spec.trial_names import trial_names
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.state.sweep_state import SweepState, TrialStatus
from tests.support.trials import new_storage, run
from trainables.config.keys import complete, trial_key
from trainables.data.digits import DIGITS_DIGEST
from trainables.export.sparse_model import SparseModel

TEXT = """\
name: tiny
dataset: {name: digits, limit: 200, validation: 0.2}
model: convnet
method: srste
search: {warmup_epochs: [1], sparsity: [0.5], seed: [0, 1]}
training: {epochs: 2, batch_size: 20, lr: 0.05}
precision: fp32
"""


def export_sweep(home: Path, text: str = TEXT) -> SweepFolder:
    """The folder of the sweep of a file's text, whose trials this process computes."""
    (home / "sweep.yaml").write_text(text)
    spec = load_spec(str(home / "sweep.yaml"), [])
    storage, configs = new_storage(home / "runs"), expand(spec)
    state = SweepState(sweep=spec.name)
    for config, name in zip(configs, trial_names(configs), strict=True):
        key = trial_key(config, DIGITS_DIGEST)
        metrics = run(config, storage, provenance={"data_digest": DIGITS_DIGEST, "revision": "abc1234"})["metrics"]
        state.trials[key] = TrialStatus(key=key, name=name, state="finished", config=complete(config), metrics=metrics)
    folder = SweepFolder(storage, spec.name)
    folder.write_state(state)
    storage.write_json(folder.file("trials.json"), {"trials": []})
    storage.write_json(folder.file("spec.json"), spec.model_dump(mode="json"))
    return folder


def spec_of(folder: SweepFolder) -> SweepSpec:
    return spec_from_resolved(folder.storage.read_json(folder.file("spec.json")))


def recommended_model(folder: SweepFolder) -> tuple[Selection, SparseModel]:
    chosen = select_trial(folder, None, None, ())
    return chosen, trial_model(folder.storage, spec_of(folder), chosen.trial.key, chosen.result)
