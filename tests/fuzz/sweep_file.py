"""Sweep files: the presets and the template, with bytes and values that nobody would write."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from orchestrator.errors import UserError
from orchestrator.spec.loader import load_spec, resolved
from orchestrator.spec.presets import preset_text, template
from orchestrator.spec.yaml_document import parse, parse_value
from tests.fuzz.choices import Choices
from tests.fuzz.edits import with_other_value
from tests.fuzz.sample import Sample

PRESETS = ("digits", "digits-search", "cifar10-search", "grasp/cifar10-vgg19")
ALIASES = "name: x\nk0: &k0 [0, 1]\n" + "".join(f"k{n}: &k{n} [*k{n - 1}, *k{n - 1}]\n" for n in range(1, 40))


def samples(folder: Path) -> list[Sample]:
    file = folder / "sweep.yaml"

    def read(content: bytes) -> Any:
        file.write_bytes(content)
        return resolved(load_spec(str(file)))

    def read_option(content: bytes) -> Any:
        file.write_text(preset_text("digits"))
        return resolved(load_spec(str(file), [content.decode(errors="replace")]))

    texts = {name: preset_text(name) for name in PRESETS} | {"template": template()}
    sweeps = [
        Sample(name=name, content=text.encode(), read=read, errors=(UserError,), edit=yaml_edit, is_checked=False)
        for name, text in texts.items()
    ]
    options = [
        Sample(name=text, content=text.encode(), read=read_option, errors=(UserError,), is_checked=False)
        for text in ("training.epochs=4", "search.sparsity=[0.9, 0.95]", "method=imp")
    ]
    aliases = Sample(
        name="aliases", content=b"name: x\n", read=read_aliases, errors=(UserError,), edit=alias_edit, is_checked=False
    )
    value = Sample(name="value", content=b"{a: [1, 2e3]}", read=read_value, errors=(UserError,), is_checked=False)
    return [*sweeps, *options, aliases, value]


def read_aliases(content: bytes) -> Any:
    """The whole text of the values, as a message would show it."""
    return repr(parse(content.decode(errors="replace"), "f").data)


def read_value(content: bytes) -> Any:
    return repr(parse_value(content.decode(errors="replace"), "--set x"))


def yaml_edit(content: bytes, choices: Choices) -> bytes:
    """The file with another value in it."""
    text = io.StringIO()
    YAML(typ="safe", pure=True).dump(with_other_value(parse(content.decode(), "f").data, choices), text)
    return text.getvalue().encode(errors="surrogatepass")


def alias_edit(content: bytes, choices: Choices) -> bytes:
    """Lines that multiply what they stand for, as far as one likes."""
    return "".join(ALIASES.splitlines(keepends=True)[: 2 + choices.number(40)]).encode()
