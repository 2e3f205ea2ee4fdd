"""Spiking networks in the sweep file: which trials have which rule, and what is refused."""

from __future__ import annotations

import pytest

from orchestrator.errors import UserError
from orchestrator.spec.grid import expand
from tests.support.sweep_files import BASE, load_text
from trainables.config.spiking import SpikingConfig

SLTT = "training: {spiking: {rule: sltt}}\n"


def test_rule_is_an_axis_and_trials_have_what_it_uses_alone() -> None:
    lines = "training: {spiking: {steps: 4, tau: 1.5, sampled_steps: 2}}\nsparsity: 0.5\n"
    found = expand(load_text(BASE + lines + "search: {training.spiking.rule: [none, sltt, sltt-k, bptt]}\n"))
    expected = [
        SpikingConfig(),
        SpikingConfig(rule="sltt", steps=4, tau=1.5),
        SpikingConfig(rule="sltt-k", steps=4, tau=1.5, sampled_steps=2),
        SpikingConfig(rule="bptt", steps=4, tau=1.5),
    ]
    for is_dense in (False, True):
        assert [one.training.spiking for one in found if one.is_dense == is_dense] == expected


def test_axes_that_no_rule_uses_make_no_further_trials() -> None:
    axes = "search: {training.spiking.sampled_steps: [1, 2], training.spiking.rule: [sltt, sltt-k]}\n"
    found = [one.training.spiking for one in expand(load_text(BASE + "method: magnitude\nbaseline: none\n" + axes))]
    assert [(one.rule, one.sampled_steps) for one in found] == [("sltt", 1), ("sltt-k", 1), ("sltt-k", 2)]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (SLTT + "model: vgg11\ndataset: {name: cifar10, root: .}\n", "be none for this model, got .* take one of convnet, res"),
        (SLTT + "model: {module: nets.wide}\n", "must be none for this model"),
        (SLTT + "method: grasp\n", "must be none for grasp: its scores need second derivatives.*take one of drive, snip"),
        (SLTT + "method: hap\n", "must be none for hap: its scores need second derivatives"),
        (SLTT + "method: synflow\n", "must be none for synflow: its flow needs outputs that are sums"),
        (SLTT + "method: consensus\n", "must be none for consensus: its gates see one time step"),
        (SLTT + "granularity: channel\ntarget: {latency: 0.5}\n", r"must be none with target\.latency"),
        (SLTT + "resources: {compile: true}\n", r"must be none with resources\.compile"),
        ("training: {spiking: {steps: 4}}\n", r"training\.spiking\.steps must be given only with a rule"),
        ("training: {spiking: {tau: 2.0}}\n", r"training\.spiking\.tau must be given only with a rule"),
        ("training: {spiking: {rule: sltt, sampled_steps: 2}}\n", "sampled_steps must be given only with rule sltt-k"),
        ("training: {spiking: {rule: sltt-k, steps: 2, sampled_steps: 3}}\n", r"must be <= training\.spiking\.steps, got .* 3"),
        ("training: {spiking: {rule: sltt, tau: 0.5}}\n", r"tau must be >= 1"),
        ("training: {spiking: {rule: sltt, steps: 0}}\n", r"steps must be >= 1"),
        ("training: {spiking: {rule: stdp}}\n", "rule must be one of none, sltt, sltt-k, bptt"),
    ],
)
def test_conflict_is_refused_with_key_rule_and_fix(lines: str, message: str) -> None:
    base = BASE if "model:" not in lines else "name: x\n" + ("" if "dataset:" in lines else "dataset: {name: digits}\n")
    with pytest.raises(UserError, match=message):
        load_text(base + lines)
