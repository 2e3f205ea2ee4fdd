"""The commands of the command line: one table with the help, the arguments and the function of each.

To add a command, write its function in a file of this folder, and its entry here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from orchestrator.command_line import DEFAULT_STORAGE, PROGRAM
from orchestrator.commands.shell_functions import SHELLS
from orchestrator.uris import STORAGE_FORMS
from trainables.errors import FINAL_KINDS
from trainables.export.table import FORMATS

STORAGE_HELP = f"where results are kept: {STORAGE_FORMS} (default: {DEFAULT_STORAGE})"
FILE_HELP = "sweep file, or the name of a preset such as digits or reference/cifar10-vgg16"


COMPLETION_HELP = f"""\
print the script that completes commands, options and sweeps in a shell

Put the line of your shell into its start file, and open a new terminal:

  ~/.bashrc                   eval "$({PROGRAM} completion bash)"
  ~/.zshrc                    eval "$({PROGRAM} completion zsh)"
  ~/.config/fish/config.fish  {PROGRAM} completion fish | source"""


class Reach(Enum):
    """Where a command works."""

    HERE = "on this machine"
    JOBS = "through a cluster's Jobs API"
    ASKS_JOBS = "on this machine; with --address through a cluster's Jobs API"
    LISTS = "on a storage; without --storage, but with --address or RAY_API_SERVER_ADDRESS, through a cluster's Jobs API"
    JOINS = "on this machine; with --address HOST:PORT as a driver of that cluster, with a dashboard through its Jobs API"


@dataclass(frozen=True)
class Argument:
    """One argument, as argparse takes it.

    Attributes:
        completes: what a shell offers for it, a kind of words_by_kind in completion.py; empty for its choices, or nothing.
    """

    flags: tuple[str, ...]
    settings: dict[str, Any]
    completes: str = ""


def argument(*flags: str, completes: str = "", **settings: Any) -> Argument:
    return Argument(flags, settings, completes)


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command.

    Attributes:
        module: file of this folder.
        example: a command line without the program's name, for the help.
        function: in it, from options to exit code; through the Jobs API that of the same name in jobs.py.
        description: the head of its help text; by default `help`.
        prints_answer: stdout holds its answer alone, as with --json.
    """

    name: str
    help: str
    module: str
    example: str
    arguments: tuple[Argument, ...] = field(default=())
    function: str = ""
    reach: Reach = Reach.HERE
    description: str = ""
    prints_answer: bool = False

    def __post_init__(self) -> None:
        if not self.function:
            object.__setattr__(self, "function", self.name)


SPEC = (
    argument("--set", metavar="KEY=VALUE", action="append", default=[], help="any key of the sweep file, dotted"),
    argument("--name", help="name of the sweep, instead of the file's"),
    argument("--tracking-uri", metavar="URI", help="MLflow tracking server, instead of the file's"),
)
STORAGE = argument("--storage", metavar="FOLDER|URI", completes="folder", help=STORAGE_HELP)
FILE = (argument("file", metavar="FILE", completes="sweep file", help=FILE_HELP), *SPEC, STORAGE)
SWEEP = (argument("name", metavar="NAME", completes="sweep", help="name of the sweep"), STORAGE)
JSON = argument("--json", action="store_true", help="answer in JSON on stdout")
CLUSTER = (
    argument(
        "--address",
        help="Ray cluster to join, HOST:PORT (default: RAY_ADDRESS, else a local Ray); with `resume` also a dashboard, http://...",
    ),
    argument("--quiet", action="store_true", help="no progress"),
    argument("--events", metavar="FILE", completes="file", help="append a JSON line for each event to a file"),
)
RECOMPUTE = argument("--recompute", action="store_true", help="archive the results of earlier runs and compute them again")
ACCEPT = argument(
    "--accept-changed",
    metavar="FILE",
    action="append",
    completes="file",
    help="keep the trials that were finished before this file of yours changed; may be repeated",
)
DASHBOARD = argument("--address", help="dashboard of the cluster, http://HEAD:8265 (default: RAY_API_SERVER_ADDRESS)")
ASK = argument("--address", help="URL of the cluster's dashboard, http://HEAD:8265; query the sweep's newest job there")

_ALL = (
    Command(
        name="init",
        module="sweep_file",
        example="init sweep.yaml --from cifar10-resnet20",
        help="write a commented sweep file to start from",
        arguments=(
            argument(
                "--from",
                dest="preset",
                metavar="NAME",
                completes="preset",
                help="start from a preset, such as reference/cifar10-vgg16",
            ),
            argument("path", nargs="?", default="sweep.yaml", completes="file", help="file to write (default: sweep.yaml)"),
        ),
    ),
    Command(
        name="plan",
        module="sweep_file",
        example="plan sweep.yaml --set search.sparsity='[0.9, 0.95]'",
        help="show what would run: trials, shared warm-ups, reused results, cost",
        arguments=(
            *FILE,
            JSON,
            argument("--hash", action="store_true", help="read the data to compute its digest, so that reuse can be shown"),
            argument("--measure", action="store_true", help="time a few batches and rounds on this machine; reads the data"),
            argument(
                "--images-per-second", metavar="N", help="images that one slot trains on in a second; the hours follow from it"
            ),
            argument(
                "--price-per-hour",
                metavar="PRICE",
                help="of one GPU, on CPUs of all CPUs of one trial; is multiplied by the hours that trials hold them",
            ),
        ),
    ),
    Command(
        name="data",
        module="data",
        example="data sweep.yaml --out batch.png",
        help="check the data: counts, files, duplicates, and a picture of what the network sees",
        arguments=(
            *FILE,
            JSON,
            argument("--out", metavar="PNG", completes="file", help="file of the picture (default: NAME-data.png)"),
        ),
    ),
    Command(
        name="schema",
        module="sweep_file",
        example="schema > sweep.schema.json",
        help="print the JSON Schema of the sweep file, for editors",
        prints_answer=True,
    ),
    Command(
        name="trial",
        module="sweep_file",
        example="trial sweep.yaml --index 3",
        help="run one trial in the foreground, without Ray; FILE may be a trial's key",
        arguments=(*FILE, JSON, argument("--index", type=int, help="which trial of the file, counted from 0 as in `plan`")),
    ),
    Command(
        name="run",
        module="run",
        example="run sweep.yaml --storage /data/sweeps",
        help="run a sweep; running it again continues it",
        arguments=(
            *FILE,
            JSON,
            RECOMPUTE,
            ACCEPT,
            *CLUSTER,
        ),
        reach=Reach.JOINS,
    ),
    Command(
        name="submit",
        module="jobs",
        example="submit sweep.yaml --storage /shared --address http://head:8265",
        help="run a sweep as a job of a cluster, independently of this machine",
        arguments=(
            *FILE,
            JSON,
            DASHBOARD,
            argument("--wait", action="store_true", help="print the output of the job, and exit with its code"),
        ),
        reach=Reach.JOBS,
    ),
    Command(
        name="list",
        module="sweeps",
        function="list_sweeps",
        help="list the sweeps of a storage, or those submitted to a cluster, newest first",
        description="list the sweeps of a storage, or those submitted to a cluster, newest first\n\n"
        "With --address, or RAY_API_SERVER_ADDRESS and no --storage: the jobs of that cluster.",
        example="list --storage /data/sweeps",
        arguments=(JSON, STORAGE, DASHBOARD),
        reach=Reach.LISTS,
    ),
    Command(
        name="rename",
        module="sweeps",
        help="give a sweep another name, here and in MLflow; trials keep their keys",
        example="rename digits digits-first-try",
        arguments=(*SWEEP, argument("new", metavar="NEW", help="its new name"), JSON),
    ),
    Command(
        name="delete",
        module="sweeps",
        help="delete a sweep, with the trials and warm-ups that no other sweep uses; MLflow keeps its runs",
        example="delete digits --dry-run",
        arguments=(
            *SWEEP,
            JSON,
            argument("--dry-run", action="store_true", help="only show what would be deleted"),
            argument("--yes", action="store_true", help="do not ask"),
        ),
    ),
    Command(
        name="gc",
        module="sweeps",
        function="collect_garbage",
        help="free what no sweep of a storage needs any more: snapshots of warm-ups, leftovers; shows it first",
        example="gc --storage /data/sweeps --dry-run",
        arguments=(
            STORAGE,
            JSON,
            argument("--archives", action="store_true", help="also the archives, in folders named .aside"),
            argument("--unused-trials", action="store_true", help="also trials that no sweep names, with their results"),
            argument("--dry-run", action="store_true", help="only show what would be freed"),
            argument("--yes", action="store_true", help="do not ask"),
        ),
    ),
    Command(
        name="resume",
        module="resume",
        example="resume cifar10-resnet20 --only failed",
        help="run the trials that failed or did not finish",
        arguments=(
            *SWEEP,
            JSON,
            argument("--only", choices=["failed", "unfinished"], help="only failed trials, or only the other unfinished ones"),
            argument(
                "--kind",
                action="append",
                metavar="KIND",
                choices=[kind.value for kind in FINAL_KINDS],
                help=f"only trials that failed so: {', '.join(FINAL_KINDS)}; may be repeated",
            ),
            argument("--trial", metavar="KEY", action="append", help="only this trial; may be repeated"),
            argument(
                "--set",
                metavar="KEY=VALUE",
                action="append",
                default=[],
                help="change a key of the sweep file that decides no number, from now on",
            ),
            ACCEPT,
            RECOMPUTE,
            argument("--continue-stopped", action="store_true", help="take trials that were stopped early on to their end"),
            argument("--from-scratch", action="store_true", help="ignore checkpoints"),
            argument("--dry-run", action="store_true", help="only show what would run"),
            argument("--wait", action="store_true", help="with the address of a dashboard: print the output of the job"),
            *CLUSTER,
        ),
        reach=Reach.JOINS,
    ),
    Command(
        name="status",
        module="results",
        example="status cifar10-resnet20 --json",
        help="show the state of a sweep",
        arguments=(*SWEEP, JSON, ASK),
        reach=Reach.ASKS_JOBS,
    ),
    Command(
        name="logs",
        module="results",
        example="logs cifar10-resnet20 -f",
        help="show the log of a sweep",
        arguments=(
            *SWEEP,
            argument("--trial", metavar="KEY", help="only this trial: its lines, and its error with the traceback"),
            argument("--follow", "-f", action="store_true", help="print new lines until the sweep ends"),
            ASK,
        ),
        reach=Reach.ASKS_JOBS,
    ),
    Command(
        name="stop",
        module="run",
        example="stop cifar10-resnet20",
        help="stop a running sweep; `resume` continues it",
        arguments=(*SWEEP, argument("--trial", metavar="KEY", help="stop only this trial"), ASK),
        reach=Reach.ASKS_JOBS,
    ),
    Command(
        name="sync",
        module="maintenance",
        example="sync cifar10-resnet20 --tracking-uri http://mlflow:5000",
        help="update MLflow from the trial folders",
        arguments=(
            *SWEEP,
            JSON,
            argument("--tracking-uri", metavar="URI", help="MLflow tracking server, instead of the sweep's"),
        ),
    ),
    Command(
        name="report",
        module="results",
        example="report cifar10-resnet20 --html report.html",
        help="show the results: a table, heat maps, the best trials",
        arguments=(
            *SWEEP,
            JSON,
            argument("--html", metavar="FILE", completes="file", help="write the report as one HTML file"),
            argument(
                "--out",
                metavar="FOLDER",
                completes="folder",
                help="write the page, each figure as PNG and SVG, and the trials as CSV and Parquet",
            ),
            ASK,
        ),
        reach=Reach.ASKS_JOBS,
    ),
    Command(
        name="doctor",
        module="maintenance",
        example="doctor sweep.yaml --storage /data/sweeps",
        help="check storage, tracking, data and every node before a sweep; repair after a crash",
        arguments=(
            JSON,
            argument(
                "file",
                metavar="FILE",
                nargs="?",
                completes="sweep file",
                help=f"{FILE_HELP}; without it the data is not checked",
            ),
            *SPEC,
            argument(
                "--storage", metavar="FOLDER", completes="folder", help=f"where results are kept (default: {DEFAULT_STORAGE})"
            ),
            argument("--fix", action="store_true", help="mend what does not agree in the storage and MLflow; deletes nothing"),
            argument("--address", help="Ray cluster to check, HOST:PORT or a dashboard, http://... (default: this machine)"),
        ),
        reach=Reach.JOINS,
    ),
    Command(
        name="compare",
        module="results",
        example="compare digits --method imp --masks",
        help="compare a method with every other: accuracy, with a paired test over seeds, and time",
        arguments=(
            *SWEEP,
            JSON,
            argument("--masks", action="store_true", help="compare the masks too, which reads the models"),
            argument(
                "--method", metavar="METHOD", completes="method", help="the method to compare with the others (default: drive)"
            ),
        ),
    ),
    Command(
        name="export",
        module="export",
        example="export digits --sparsity 0.9 --format onnx --out digits-onnx",
        help="write a sweep's model for use elsewhere, with a model card, and check it",
        arguments=(
            *SWEEP,
            JSON,
            argument("--sparsity", type=float, metavar="S", help="the model recommended for this sparsity"),
            argument("--trial", metavar="KEY", help="the model of this finished trial (default: the recommended one)"),
            argument(
                "--format",
                required=True,
                choices=list(FORMATS),
                help="; ".join(f"{name}: {each.description}" for name, each in FORMATS.items()),
            ),
            argument("--out", required=True, metavar="FOLDER", completes="folder", help="new or empty folder"),
            argument("--license", metavar="TEXT", help="for the model card (default: not stated)"),
            argument("--no-latency", action="store_true", help="do not measure how fast it is"),
            argument("--address", metavar="URL", help="must be left out, since files are written on this machine"),
        ),
        reach=Reach.ASKS_JOBS,
    ),
    Command(
        name="latency",
        module="latency",
        example="latency 3f2a9c0d1e4b5a67 --batch 1 --batch 64",
        help="measure how fast the networks of finished trials run here: dense, masked, without removed channels, sparse",
        arguments=(
            argument("keys", metavar="KEY", nargs="+", help="key of a finished trial"),
            STORAGE,
            JSON,
            argument(
                "--batch",
                metavar="N",
                type=int,
                action="append",
                help="images in a batch; may be repeated (default: 1 and 64)",
            ),
            argument("--threads", metavar="N", type=int, default=1, help="threads on the CPU (default: 1)"),
            argument("--gpu", action="store_true", help="on the GPU of this machine"),
            argument("--half", action="store_true", help="with --gpu in half precision, in which it runs 2:4 layers"),
        ),
    ),
    Command(
        name="timings",
        module="timings",
        example="timings sweep.yaml --out timings.json",
        help="measure how long each layer of a sweep's network takes, for target.latency",
        arguments=(
            *FILE,
            JSON,
            argument("--out", required=True, metavar="FILE", completes="file", help="the timing table to write"),
            argument("--batch", metavar="N", type=int, default=1, help="images in a batch (default: 1)"),
            argument("--threads", metavar="N", type=int, default=1, help="threads on the CPU (default: 1)"),
            argument("--gpu", action="store_true", help="on the GPU of this machine"),
        ),
    ),
    Command(
        name="guide",
        module="guide",
        example="guide results",
        help="print the guide: without a topic, the list of topics",
        arguments=(argument("topic", metavar="TOPIC", nargs="?", completes="topic", help="such as methods or results"),),
    ),
    Command(
        name="completion",
        module="completion",
        help="print the script that completes commands, options and sweeps in a shell",
        example="completion bash",
        arguments=(argument("shell", metavar="SHELL", choices=tuple(SHELLS), help=f"one of {', '.join(SHELLS)}"),),
        description=COMPLETION_HELP,
        prints_answer=True,
    ),
    Command(
        name="ui",
        module="ui",
        example="ui cifar10-resnet20 --print-links",
        help="open the MLflow UI at a sweep, in the browser where there is one, and print the link",
        arguments=(
            argument("name", metavar="NAME", nargs="?", completes="sweep", help="name of the sweep (default: the newest)"),
            STORAGE,
            argument("--port", type=int, default=5000, help="port of the server on loopback (default: 5000)"),
            argument(
                "--print-links",
                action="store_true",
                help="print links to the sweep's run, its trials, those of each sparsity, and its models; open none",
            ),
            argument("--no-browser", action="store_true", help="open no browser"),
        ),
    ),
)
COMMANDS: dict[str, Command] = {command.name: command for command in _ALL}
