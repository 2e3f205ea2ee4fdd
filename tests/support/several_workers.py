"""Trials of several workers in processes of this machine, and sums of parts that the workers compute."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from orchestrator.storage.base import Storage
from orchestrator.storage.layout import StageFolders
from tests.support.trials import RUNTIME, tiny_settings, trial_folder
from trainables.config.keys import canonical
from trainables.config.trial import TrialConfig
from trainables.export.sparse_model import load_masks
from trainables.pruning.masks import Masks
from trainables.runtime.device import Runtime
from trainables.runtime.group import joined, open_store
from trainables.runtime.placement import Place
from trainables.worker.local_peers import LocalPeers
from trainables.worker.peers import Peers
from trainables.worker.stage import Stage
from trainables.worker.trainable import execute_stage

Answer = list[torch.Tensor]
PLACE = Place(processor="a processor")


def run_together(
    config: TrialConfig,
    storage: Storage,
    peers: Peers | None,
    attempt: int = 1,
    report: Callable[[dict[str, Any]], None] = lambda report: None,
    **runtime: Any,
) -> dict[str, Any]:
    """One attempt at a trial, run as a worker of the cluster runs it: its last report.

    Args:
        peers: the other workers; None for a trial of one.
        runtime: what is not as usual in tests.
    """
    folder = trial_folder(config, storage, attempt)
    folder.claim_attempt()
    workers = peers.workers if isinstance(peers, LocalPeers) else 1
    own = replace(RUNTIME, workers=workers, **runtime)
    settings = tiny_settings(StageFolders(storage, None), runtime=own, progress_seconds=0.0)
    stage = Stage(
        kind="trial", key=folder.key, name="tiny", config=canonical(config), attempt=attempt, lengths=config.warmup_lengths
    )
    return execute_stage(stage, settings, report, peers)


def result_of(config: TrialConfig, storage: Storage) -> dict[str, Any]:
    """The content of the trial's result.json."""
    result: dict[str, Any] = json.loads(trial_folder(config, storage).read("result.json") or b"")
    return result


def masks_of(config: TrialConfig, storage: Storage) -> Masks:
    return load_masks(trial_folder(config, storage).read("model.safetensors.zst") or b"")


def different_weights(ours: Masks, theirs: Masks) -> int:
    """How many weights only one of two trials has kept."""
    return sum(int((ours[name] ^ theirs[name]).sum()) for name in ours)


def computed_by_all(peers: LocalPeers, compute: Callable[[Runtime], Answer]) -> list[Answer]:
    """What each worker computes, by rank."""
    runtime = replace(RUNTIME, workers=peers.workers)
    store = open_store(peers.address, peers.workers)
    peers.begin(_compute, compute, runtime, store.port)
    with joined(0, peers.workers, PLACE, peers.address, store):
        answers = [compute(runtime)]
    while peers.working():
        peers.poll(1.0)
    others = peers.poll(0)
    return answers + [others[rank]["answer"] for rank in sorted(others)]


def _compute(rank: int, compute: Callable[[Runtime], Answer], runtime: Runtime, port: int) -> dict[str, Any]:
    with joined(rank, runtime.workers, PLACE, "127.0.0.1", port):
        return {"status": "finished", "answer": compute(runtime)}
