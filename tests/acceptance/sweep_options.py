"""Which sweep a check runs, by default the preset `digits`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace


def add_sweep_options(parser: ArgumentParser) -> None:
    parser.add_argument("--sweep", default="digits", help="a preset")
    parser.add_argument("--set", dest="settings", metavar="KEY=VALUE", action="append", default=[], help="changes a key of it")


def sweep_of(options: Namespace) -> tuple[str, str, list[str]]:
    """The preset, the name of its sweep, and the arguments of `run` that change it."""
    return options.sweep, options.sweep.replace("/", "-"), [part for one in options.settings for part in ("--set", one)]
