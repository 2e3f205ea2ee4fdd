"""References to custom code: their forms in the sweep file, the keys of trials that use them, and errors in the sweep file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from orchestrator.errors import UserError
from orchestrator.planning.plan import Plan
from orchestrator.spec.grid import expand
from orchestrator.spec.loader import load_spec, resolved, spec_from_resolved
from orchestrator.spec.trial_names import trial_names
from orchestrator.storage.base import Storage
from tests.support.custom_modules import DATA, LOSSES, NETS, PLAIN, SWEEP, dense_weights, plan_of, write_modules
from trainables.config.keys import trial_key, warmup_key
from trainables.data.digits import DIGITS_DIGEST


def keys_of(plan: Plan) -> dict[tuple[str, str], tuple[str, str]]:
    return {(trial.config.model, trial.config.method): (trial.key, trial.warmup_key) for trial in plan.trials}


def test_both_forms_of_a_reference_give_the_same_spec(folder: Path) -> None:
    (folder / "a.yaml").write_text(SWEEP)
    (folder / "b.yaml").write_text(SWEEP.replace("module: mydata", "name: module:mydata"))
    spec = load_spec("a.yaml")
    assert spec == load_spec("b.yaml") == spec_from_resolved(json.loads(json.dumps(resolved(spec))))
    config = expand(spec)[1]
    assert (config.model, config.dataset.name, config.training.loss, config.initial_weights) == (
        "module:mynets.wide",
        "module:mydata.load",
        "module:mylosses.by_hand",
        True,
    )
    assert trial_names(expand(spec))[1] == "w01-i001-s0.9-r0-modelmynets.wide"


def test_trial_key_has_the_digests_of_used_files_alone(folder: Path, storage: Storage) -> None:
    before = keys_of(plan_of(PLAIN, storage))
    for (model, _), (key, warmup) in before.items():
        configs = [trial.config for trial in plan_of(PLAIN, storage).trials if trial.key == key]
        plain = (trial_key(configs[0], DIGITS_DIGEST), warmup_key(configs[0], DIGITS_DIGEST))
        assert ((key, warmup) == plain) == (model == "convnet")
    (folder / "mynets.py").write_text(NETS + "\n")
    after = keys_of(plan_of(PLAIN, storage))
    for place, (key, warmup) in before.items():
        assert (after[place][0] == key, after[place][1] == warmup) == ((place[0] == "convnet",) * 2)


@pytest.mark.extended
@pytest.mark.process
def test_keys_depend_on_content_and_not_path_of_a_file(folder: Path, tmp_path: Path, storage: Storage) -> None:
    save_file(dense_weights(), folder / "dense.safetensors")
    before = keys_of(plan_of(SWEEP, storage))
    built_in = SWEEP.replace("module: mydata.load", "name: digits")  # which starts no process
    of_built_in = keys_of(plan_of(built_in, storage))
    elsewhere = write_modules(tmp_path / "runs")
    shutil.copy(folder / "dense.safetensors", elsewhere / "moved")
    (elsewhere / "mynets.py").touch()
    moved = keys_of(plan_of(SWEEP, storage, f"modules_path={elsewhere}", f"initial_weights={elsewhere / 'moved'}"))
    assert moved == before

    def changed_by(text: str, **files: str) -> set[str]:
        """Networks whose trials have other keys when these files have changed."""
        write_modules(folder, **files)
        unchanged = before if text == SWEEP else of_built_in
        changed = keys_of(plan_of(text, storage))
        write_modules(folder)
        return {model for model, method in unchanged if changed[model, method][0] != unchanged[model, method][0]}

    everything = {"convnet", "module:mynets.wide"}
    assert changed_by(SWEEP, mydata=DATA + "# changed\n") == everything
    assert changed_by(built_in, mylosses=LOSSES + "# changed\n") == everything
    assert changed_by(built_in, mynets=NETS + "# changed\n") == {"module:mynets.wide"}
    assert changed_by(built_in, mydata=DATA + "# changed\n") == set()
    save_file({"other": torch.zeros(1)}, folder / "dense.safetensors")
    assert changed_by(built_in) == everything


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("mynets.wide", "mynets"), "search.model[1] must be one of convnet, "),
        (("mynets.wide", "my nets.wide"), "or {module: FILE.FUNCTION}, got {'module': 'my nets.wide'}"),
        (("model: [convnet, {module", "model: [convnet, {modul"), "search.model[1] must be one of"),
        (("warmup_epochs: 1", "width: 2"), "width must be 1 for this model, got"),
        (("name: digits", "module: mydata.load, download: true"), "must be false for module:mydata.load"),
        (("name: digits", "module: mydata.load, image_size: 8"), "must not be given for module:mydata.load"),
        (("name: digits", "module: 3"), "dataset.name must be one of digits"),
        (
            ("warmup_epochs: 1", "training: {label_smoothing: 0.1, loss: {module: mylosses.doubled}}"),
            "s.yaml:4: training.label_smoothing must be 0 with a custom loss, got training.label_smoothing 0.1",
        ),
        (("model: [", "initial_weights: [a, b], model: ["), "must be one value for the whole sweep, got ['a', 'b']; write one"),
    ],
)
def test_sweep_file_error_names_the_rule(folder: Path, storage: Storage, change: tuple[str, str], message: str) -> None:
    with pytest.raises(UserError) as error:
        plan_of(PLAIN.replace(*change), storage)
    assert message in str(error.value)
