"""The commands that read results: status, logs, report, compare.

Each is a function that takes the parsed options and returns the exit code. Heavy modules are imported inside the functions that
need them, so that `status` answers at once.
"""

from __future__ import annotations

import json
import re
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from orchestrator.command_line import command
from orchestrator.commands.options import follow_moved_storage, notify, storage_from
from orchestrator.commands.output_files import write_output, write_output_folder
from orchestrator.errors import EXIT_DONE
from orchestrator.process.output import answer, reader_gone
from orchestrator.state.driver_liveness import driver_alive
from orchestrator.state.sweep_folder import SweepFolder, open_sweep, require_known_trials
from orchestrator.state.sweep_state import SweepState
from orchestrator.storage.layout import trial_file
from trainables.records.failure_record import read_failure
from trainables.records.file_names import ERROR
from trainables.wording import without_controls

LOG_POLL_INTERVAL_S, STORE_POLL_INTERVAL_S = 0.5, 3.0  # of `logs --follow`, on a folder and on an object store
LOG_HEAD = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ")


def status(options: Namespace) -> int:
    from orchestrator.terminal.status import print_status

    folder = open_sweep(storage_from(options), options.name)
    state = folder.read_state() or SweepState(sweep=options.name)
    if options.json:
        answer(json.dumps(state.to_status(), indent=1))
    else:
        print_status(state)
    return EXIT_DONE


def logs(options: Namespace) -> int:
    storage = storage_from(options)
    folder = open_sweep(storage, options.name)
    pattern = re.compile("")
    if options.trial:
        state = folder.read_state()
        trials = state.trials if state else {}
        require_known_trials(options.name, [options.trial], trials)
        pattern = re.compile(rf" {re.escape(trials[options.trial].name)}(?=[ :]|$)")
    shown = True
    for line in _log_lines(folder, options.follow):
        if LOG_HEAD.match(line):  # lines without a time belong to the one before them
            shown = bool(pattern.search(line.rstrip()))
        if shown:
            print(without_controls(line))
    error = read_failure(storage.read(trial_file(options.trial, ERROR))) if options.trial else None
    if error:
        print(without_controls(f"attempt {error['attempt']} failed ({error['kind']}):\n{error['traceback']}"), end="")
    return EXIT_DONE


def _log_lines(folder: SweepFolder, follow: bool) -> Iterator[str]:
    """The lines of sweep.log; with `follow`, until the sweep or the reader of stdout is gone."""
    position, ended = 0, not follow
    while True:
        new = folder.storage.read(folder.file("sweep.log"), position) or b""
        complete = new[: new.rfind(b"\n") + 1]
        yield from complete.decode(errors="replace").splitlines()
        position += len(complete)
        if ended:
            return
        state = folder.read_state()
        ended = state is None or not driver_alive(state.driver)  # then once more, for lines that came meanwhile
        sys.stdout.flush()
        if reader_gone():
            return
        time.sleep(LOG_POLL_INTERVAL_S if folder.storage.folder is not None else STORE_POLL_INTERVAL_S)


def report(options: Namespace) -> int:
    from orchestrator.reporting.report import report_of
    from orchestrator.reporting.sweep_results import sweep_results

    folder = open_sweep(storage_from(options), options.name)
    follow_moved_storage(folder.storage)
    state = folder.read_state() or SweepState(sweep=options.name)
    results = sweep_results(folder, state)
    if options.html:
        from orchestrator.page.page import html_page

        write_output("--html", Path(options.html), html_page(results).encode())
        notify(f"wrote {options.html}")
    if options.out:
        from orchestrator.page.artifacts import report_files

        files = report_files(results)
        write_output_folder("--out", Path(options.out), files)
        notify(f"wrote {len(files)} files into {options.out}")
    if options.json:
        answer(json.dumps(report_of(results).to_json(), indent=1))
    else:
        report_of(results).print()
    return EXIT_DONE


def compare(options: Namespace) -> int:
    from orchestrator.reporting.comparison import REFERENCE
    from orchestrator.reporting.comparison import compare as compare_methods
    from orchestrator.state.trial_results import recorded_state

    folder = open_sweep(storage_from(options), options.name)
    state = folder.read_state() or SweepState(sweep=options.name)
    state, records, damage = recorded_state(folder.storage, state)
    for problem in damage.values():
        notify(f"excluded: {problem}; `{command('resume', folder.name)}` computes the trial again")
    comparison = compare_methods(state, options.method or REFERENCE)
    if options.masks:
        from orchestrator.reporting import mask_overlap

        masks_of = mask_overlap.masks_in(folder.storage)
        overlaps = mask_overlap.mask_overlaps(comparison, state, masks_of)
        stability = mask_overlap.stability(comparison, state, masks_of)
    if options.json:
        masks = {"masks": mask_overlap.to_json(overlaps, stability)} if options.masks else {}
        answer(json.dumps(comparison.to_json() | masks, indent=1))
        return EXIT_DONE
    from orchestrator.reporting.aggregate import numbers_of_workers, workers_notes
    from orchestrator.reporting.comparison_tables import print_comparison, print_tables
    from orchestrator.reporting.report import terminal

    console = terminal()
    print_comparison(comparison, console)
    for line in workers_notes(numbers_of_workers(records.values())):
        console.print(line, style="dim", markup=False)
    if options.masks:
        print_tables(mask_overlap.tables_of(comparison.reference, overlaps, stability), console)
        console.print(mask_overlap.NOTE, style="dim", markup=False)
    return EXIT_DONE
