"""The command `ui`: the MLflow UI at a sweep."""

from __future__ import annotations

import os
import signal
import sys
import webbrowser
from argparse import Namespace

from orchestrator.command_line import command
from orchestrator.commands.options import notify, spec_of, storage_from
from orchestrator.errors import EXIT_DONE, UserError
from orchestrator.state.sweep_folder import SweepFolder, open_sweep, sweep_names
from orchestrator.storage.base import Storage


def ui(options: Namespace) -> int:
    from orchestrator.tracking.client import is_server
    from orchestrator.tracking.links import links, run_url
    from orchestrator.tracking.target import tracking_target
    from orchestrator.tracking.ui_server import serve

    storage = storage_from(options)
    folder = open_sweep(storage, options.name or _newest_sweep(storage))
    state = folder.read_state()
    if state is None or not state.parent_run_id or not state.experiment_id:
        raise UserError(
            f"MLflow has no runs of sweep {folder.name!r} yet",
            f"`{command('sync', folder.name)}` sends them",
            code="runs-not-found",
        )
    target = tracking_target(spec_of(folder), storage)
    with serve(target, options.port) as base:
        link = run_url(base, state.experiment_id, state.parent_run_id)
        if options.print_links:
            for name, url in links(base, state).items():
                print(f"{name + ':':<28} {url}")
        else:
            print(link)
        sys.stdout.flush()
        if not options.print_links and not options.no_browser:
            open_in_browser(link)
        if is_server(target.uri):
            return EXIT_DONE
        notify("Ctrl-C stops the server")
        signal.pause()
    return EXIT_DONE


def open_in_browser(url: str) -> bool:
    """Opens the page where a person sits at a desktop; one in the terminal would take that from this command."""
    has_display = sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    if not sys.stdout.isatty() or not has_display or "SSH_CONNECTION" in os.environ:
        return False
    try:
        browser = webbrowser.get()
    except webbrowser.Error:
        return False
    in_terminal = isinstance(browser, webbrowser.GenericBrowser) and not isinstance(browser, webbrowser.BackgroundBrowser)
    return not in_terminal and browser.open(url)


def _newest_sweep(storage: Storage) -> str:
    names = sweep_names(storage)
    if not names:
        raise UserError(f"no sweeps in storage {storage.root}", "another storage: --storage", code="sweep-not-found")
    return max(names, key=lambda name: storage.modified(SweepFolder(storage, name).file("state.json")))
