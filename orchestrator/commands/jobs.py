"""The commands that work through Ray's Jobs API: submit, list, and the others if --address is http(s)://.

`submit` and `resume` start a job that runs the command of the same name there. Read-only commands run as a short job on the
cluster, so they work with storage that this machine cannot reach.
"""

from __future__ import annotations

import json
import secrets
import shlex
import sys
import time
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from orchestrator.command_line import JOBS_API_VARIABLE, command
from orchestrator.commands.options import notify, spec_from
from orchestrator.errors import EXIT_DONE, EXIT_ENVIRONMENT, SetupError, UserError
from orchestrator.jobs.client import Jobs, api_address
from orchestrator.jobs.job import Job
from orchestrator.jobs.package import collect_custom_files, package, require_files, require_shared_stores, shipped_settings
from orchestrator.jobs.remote_command import COMMAND, NO_FILES, job_metadata, run_remote_command
from orchestrator.process.output import answer, reader_gone

SWEEP_FILE = "sweep.yaml"
PLAIN_WIDTH = 200  # columns of a table in a file or pipe


def submit(options: Namespace) -> int:
    """Starts a job that runs the sweep, or what is left of one that exists."""
    spec = spec_from(options)
    require_shared_stores(spec)
    custom_files = collect_custom_files(spec)
    arguments, texts = _packaged_arguments(options, custom_files)
    jobs = Jobs(api_address(options.address))
    return _submit_job(jobs, options, spec.name, spec.storage, ["run", *arguments], custom_files, texts)


def resume(options: Namespace) -> int:
    """Starts a job that resumes a sweep which was submitted before."""
    if options.events:
        raise UserError(
            "--events: must not go with the address of a dashboard, since only a file on the cluster could be written",
            "leave it out; `logs --follow` shows the events",
            code="option-invalid",
        )
    jobs = Jobs(api_address(options.address))
    last = _newest(jobs, options)
    require_files(last.custom_files)
    arguments = ["resume", last.sweep, "--storage", last.storage]
    arguments += ["--only", options.only] if options.only else []
    for option in ("kind", "trial", "set", "accept_changed"):
        for value in getattr(options, option) or ():
            arguments += [f"--{option.replace('_', '-')}", value]
    for option in ("recompute", "continue_stopped", "from_scratch", "quiet"):
        arguments += [f"--{option.replace('_', '-')}"] if getattr(options, option) else []
    if options.dry_run:
        arguments += ["--dry-run", *_json(options)]
        answer(_run_remote(jobs, last, arguments, last.custom_files, answer_on_stderr=not options.json), end="")
        return EXIT_DONE
    return _submit_job(jobs, options, last.sweep, last.storage, arguments, last.custom_files, {})


def doctor(options: Namespace) -> int:
    """The doctor's checks of the cluster's nodes, and of what its head reaches."""
    custom_files: dict[str, str] = {}
    texts: dict[str, str] = {}
    if options.file:
        spec = spec_from(options)
        require_shared_stores(spec)
        custom_files = collect_custom_files(spec)
        arguments, texts = _packaged_arguments(options, custom_files)
    elif options.storage:
        arguments = ["--storage", options.storage]
        arguments += ["--tracking-uri", options.tracking_uri] if options.tracking_uri else []
    else:
        raise UserError(
            "doctor --address: must come with what to check on the cluster",
            "give a sweep file, or --storage URI",
            code="option-invalid",
        )
    arguments += ["--fix"] if options.fix else []
    jobs = Jobs(api_address(options.address))
    output = run_remote_command(jobs, "doctor", ["doctor", *arguments, *_json(options)], "", custom_files, texts)
    if not output.text:
        raise output.failure()
    answer(output.text, end="")
    return output.job.exit_code or EXIT_DONE


def status(options: Namespace) -> int:
    jobs = Jobs(api_address(options.address))
    last = _newest(jobs, options)
    answer(_run_remote(jobs, last, ["status", last.sweep, *_json(options)]), end="")
    return EXIT_DONE


def report(options: Namespace) -> int:
    for option in (name for name in ("html", "out") if getattr(options, name)):
        raise UserError(
            f"--{option}: must not go with --address, since files would be written on the cluster",
            "the page is an artifact of the sweep's run in MLflow, or give --storage alone where this machine sees it",
            code="option-invalid",
        )
    jobs = Jobs(api_address(options.address))
    last = _newest(jobs, options)
    answer(_run_remote(jobs, last, ["report", last.sweep, *_json(options)]), end="")
    return EXIT_DONE


def export(options: Namespace) -> NoReturn:
    raise UserError(
        "--address: must not go with export, which writes files on this machine",
        "give --storage alone where this machine sees the storage",
        code="option-invalid",
    )


def logs(options: Namespace) -> int:
    """The output of the sweep's newest job; for one trial, its lines of the sweep's log."""
    jobs = Jobs(api_address(options.address))
    last = _newest(jobs, options)
    if options.trial:
        if options.follow:
            raise UserError("--follow: must not go with --trial on a cluster", "leave one of them out", code="option-invalid")
        answer(_run_remote(jobs, last, ["logs", last.sweep, "--trial", options.trial]), end="")
        return EXIT_DONE
    if options.follow:
        _follow(jobs, last, ends_with_reader=True)
    else:
        answer(jobs.log(last.id), end="")
    return EXIT_DONE


def stop(options: Namespace) -> int:
    """Stops the sweep's job; its driver writes checkpoints and marks the runs as killed."""
    jobs = Jobs(api_address(options.address))
    last = _newest(jobs, options)
    active = [job for job in jobs.of_sweep(last.sweep, last.storage) if job.active]
    if not active:
        notify(f"sweep {last.sweep!r} is not running: job {last.id} has {last.state} (exit code {last.exit_code})")
        return EXIT_DONE
    if options.trial:
        notify(_run_remote(jobs, last, ["stop", last.sweep, "--trial", options.trial], answer_on_stderr=True).strip())
        return EXIT_DONE
    for job in active:
        notify(f"stopping job {job.id}; waiting for its checkpoints")
        ended = jobs.stop(job.id)
        notify(f"job {job.id} {ended.state} (exit code {ended.exit_code})")
    notify(f"to continue: {command('resume', last.sweep, address=jobs.address)}")
    return EXIT_DONE


def list_sweeps(options: Namespace) -> int:
    """The jobs of all sweeps on a cluster, newest first."""
    jobs = Jobs(api_address(options.address)).all()
    if options.json:
        answer(json.dumps([_job_record(job) for job in jobs], indent=1))
        return EXIT_DONE
    from orchestrator.terminal.tables import plain_table, stdout_console

    table = plain_table("sweep", "job", "state", "began", "exit code", "user", "storage", no_wrap=True)
    for job in jobs:
        started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(job.started))
        code = "" if job.exit_code is None else str(job.exit_code)
        table.add_row(job.sweep, job.id, job.state, started, code, job.user, job.storage)
    stdout_console(width=None if sys.stdout.isatty() else PLAIN_WIDTH).print(table)
    notify(f"the sweeps of a storage: {command('list', '--storage', 'FOLDER', address='')}")
    return EXIT_DONE


def run(options: Namespace) -> NoReturn:
    raise UserError(
        f"--address: must be HOST:PORT of a cluster that this driver joins, got {options.address!r}",
        f"`{command('submit')}` runs the driver there",
        code="address-invalid",
    )


def _submit_job(
    jobs: Jobs,
    options: Namespace,
    sweep: str,
    storage: str,
    arguments: list[str],
    custom_files: Mapping[str, str],
    texts: Mapping[str, str],
) -> int:
    """Submits the job; with --wait prints its output and returns its exit code."""
    for job in jobs.of_sweep(sweep, storage):
        if job.active:
            raise SetupError(
                f"sweep {sweep!r} is being run by job {job.id}",
                f"`{command('logs', sweep, '-f', address=jobs.address)}` shows it, "
                f"`{command('stop', sweep, address=jobs.address)}` ends it",
                code="sweep-running",
            )
    id_ = f"{sweep}-{secrets.token_hex(3)}"
    metadata = {"drive.sweep": sweep, "drive.own": json.dumps(dict(custom_files))} | job_metadata(storage)
    with package(texts, custom_files) as folder:
        jobs.submit(id_, f"exec {shlex.join([*COMMAND, *arguments])}", folder, metadata, {JOBS_API_VARIABLE: jobs.address})
    notify(f"submitted job {id_} to {jobs.address}; it runs without this machine")
    job = jobs.job(id_)
    if options.wait:
        job = _follow(jobs, job, sys.stderr if options.json else sys.stdout)
    else:
        notify(f"to follow it: {command('logs', sweep, '-f', address=jobs.address)}")
    if options.json:
        answer(json.dumps(_job_record(job), indent=1))
    elif not options.wait:
        print(id_)
    return job.exit_code or EXIT_DONE


def _follow(jobs: Jobs, job: Job, output: Any = None, ends_with_reader: bool = False) -> Job:
    """Prints the job's output until it ends. Ctrl-C leaves the job running and prints how to follow it again."""

    def emit(text: str) -> None:
        print(text, end="", file=output or sys.stdout, flush=True)
        if ends_with_reader and reader_gone():
            sys.exit(EXIT_DONE)

    try:
        ended = jobs.follow(job.id, emit)
    except KeyboardInterrupt:
        notify(f"job {job.id} is still running; `{command('logs', job.sweep, '-f', address=jobs.address)}` follows it again")
        raise
    if ended.problem and ended.exit_code == EXIT_ENVIRONMENT:
        notify(f"job {job.id} {ended.state}: {ended.problem}")
    return ended


def _newest(jobs: Jobs, options: Namespace) -> Job:
    """The newest job of the sweep with this name, or the job with this id.

    Raises:
        UserError: there is none.
    """
    matches = jobs.of_sweep(options.name, options.storage)
    if not matches:
        known = ", ".join(sorted({job.sweep for job in jobs.all()})) or "none"
        where = f" with storage {options.storage}" if options.storage else ""
        raise UserError(
            f"no job of a sweep {options.name!r}{where} at {jobs.address}",
            f"sweeps there: {known}. A head that was restarted knows no earlier jobs: "
            f"`{command('submit', 'FILE', address=jobs.address)}` continues a sweep from its storage",
            code="job-not-found",
        )
    return matches[0]


def _run_remote(
    jobs: Jobs, job: Job, arguments: list[str], custom_files: Mapping[str, str] = NO_FILES, answer_on_stderr: bool = False
) -> str:
    """The answer of a command that runs on the cluster, on the storage of a job.

    Raises:
        SetupError: it failed, with its own message.
        UserError: it refused its options.
    """
    if "--storage" not in arguments:
        arguments = [*arguments, "--storage", job.storage]
    name = f"{arguments[0]}-{job.sweep}"
    output = run_remote_command(jobs, name, arguments, job.storage, custom_files, answer_on_stderr=answer_on_stderr)
    if output.job.exit_code != EXIT_DONE:
        raise output.failure()
    return output.text


def _packaged_arguments(options: Namespace, custom_files: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """The arguments of a command on the cluster for this sweep file and its options; the texts to ship with them."""
    from orchestrator.spec.presets import preset_names, sweep_text

    is_preset = options.file in preset_names() and not Path(options.file).is_file()
    arguments = [options.file if is_preset else SWEEP_FILE]
    for setting in (*options.set, *shipped_settings(custom_files)):
        arguments += ["--set", setting]
    for option in ("name", "storage", "tracking_uri"):
        if value := getattr(options, option):
            arguments += [f"--{option.replace('_', '-')}", value]
    return arguments, {} if is_preset else {SWEEP_FILE: sweep_text(options.file)}


def _job_record(job: Job) -> dict[str, Any]:
    return {
        "sweep": job.sweep,
        "job": job.id,
        "state": job.state,
        "began": job.started,
        "ended": job.ended,
        "exit_code": job.exit_code,
        "storage": job.storage,
        "revision": job.revision,
        "user": job.user,
    }


def _json(options: Namespace) -> list[str]:
    return ["--json"] if options.json else []
