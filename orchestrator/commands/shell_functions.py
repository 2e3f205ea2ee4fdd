"""Functions of bash, zsh and fish that offer words for an argument: fixed ones, paths, and the sweeps of a storage.

To add a shell that shtab knows, add its functions to SHELLS.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from shlex import join, quote

from orchestrator.command_line import DEFAULT_STORAGE


@dataclass(frozen=True)
class Words:
    """What a shell offers for an argument.

    Attributes:
        fixed: words that the script itself holds.
        patterns: of the files to offer, besides folders.
        folders: offer folders.
        sweeps: offer the sweeps of the storage.
    """

    fixed: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    folders: bool = False
    sweeps: bool = False

    @property
    def has_paths(self) -> bool:
        return self.folders or bool(self.patterns)


@dataclass(frozen=True)
class ShellFunctions:
    """How one shell offers words.

    Attributes:
        common: functions that the others use.
        define: name, words -> the text of a function.
        call: name of a function -> how an argument refers to it.
    """

    common: str
    define: Callable[[str, Words], str]
    call: Callable[[str], str] = str


BASH = f"""
# The sweeps of the storage that the line names, else of the default one.
_drive_sweep_sweeps() {{
  local i file storage={DEFAULT_STORAGE}
  for ((i = 1; i < ${{#COMP_WORDS[@]}} - 1; i++)); do
    if [[ ${{COMP_WORDS[i]}} == --storage ]]; then
      storage=${{COMP_WORDS[i + 1]}}
      [[ $storage == "=" ]] && storage=${{COMP_WORDS[i + 2]}}
    fi
  done
  storage=${{storage//[\\"\\'\\\\]/}}
  storage=${{storage/#\\~\\//$HOME/}}
  for file in "$storage"/sweeps/*/trials.json; do
    file=${{file%/trials.json}}
    file=${{file##*/}}
    [[ $file != "*" && $file == "$1"* ]] && printf '%s\\n' "$file"
  done
}}

# Folders, and the files that match a pattern.
_drive_sweep_paths() {{
  local pattern word=$1
  shift
  compgen -d -- "$word"
  for pattern; do
    compgen -f -X "!$pattern" -- "$word"
  done
}}
"""

ZSH = f"""
(( $+functions[compdef] )) || {{ autoload -Uz compinit && compinit -i }}

# The sweeps of the storage that the line names, else of the default one.
_drive_sweep_sweeps() {{
  local i storage={DEFAULT_STORAGE}
  for ((i = 1; i < $#words; i++)); do
    [[ $words[i] == --storage ]] && storage=${{(Q)words[i+1]}}
    [[ $words[i] == --storage=* ]] && storage=${{(Q)words[i]#*=}}
  done
  storage=${{storage/#\\~\\//$HOME/}}
  local -a sweeps=( $storage/sweeps/*/trials.json(N:h:t) )
  compadd "$@" -a sweeps
}}
"""

FISH = f"""
# The sweeps of the storage that the line names, else of the default one.
function _drive_sweep_sweeps
  set -l storage {DEFAULT_STORAGE}
  set -l before ''
  for word in (commandline -op)
    test "$before" = --storage; and set storage $word
    string match -q -- '--storage=*' $word; and set storage (string replace -- '--storage=' '' $word)
    set before $word
  end
  set storage (string replace -r '^~/' "$HOME/" -- $storage)
  set -l files $storage/sweeps/*/trials.json
  string replace -r '.*/([^/]+)/trials.json$' '$1' -- $files
end

# Folders, and the files that match a pattern.
function _drive_sweep_paths
  for candidate in (__fish_complete_path (commandline -ct))
    set -l path (string split -m1 \\t -- $candidate)[1]
    for pattern in $argv '*/'
      if string match -q -- $pattern $path
        echo $candidate
        break
      end
    end
  end
end
"""


def _bash(name: str, words: Words) -> str:
    lines = [f'compgen -W {quote(join(words.fixed))} -- "$1"'] if words.fixed else []
    lines += [f'_drive_sweep_paths "$1" {join(words.patterns)}'] if words.has_paths else []
    lines += ['_drive_sweep_sweeps "$1"'] if words.sweeps else []
    return "\n  ".join([f"{name}() {{", *lines]) + "\n}\n"


def _zsh(name: str, words: Words) -> str:
    paths = f'_files -g "({"|".join(words.patterns)})"' if words.patterns else "_files -/"
    offers = [f"words:word:({' '.join(words.fixed)})"] if words.fixed else []
    offers += [f"files:file:{paths}"] if words.has_paths else []
    offers += ["sweeps:sweep:_drive_sweep_sweeps"] if words.sweeps else []
    return f"{name}() {{\n  _alternative {join(offers)}\n}}\n"


def _fish(name: str, words: Words) -> str:
    lines = [f"printf '%s\\n' {join(words.fixed)}"] if words.fixed else []
    lines += [f"_drive_sweep_paths {join(words.patterns)}"] if words.has_paths else []
    lines += ["_drive_sweep_sweeps"] if words.sweeps else []
    return "\n  ".join([f"function {name}", *lines]) + "\nend\n"


SHELLS = {
    "bash": ShellFunctions(BASH, _bash),
    "zsh": ShellFunctions(ZSH, _zsh),
    "fish": ShellFunctions(FISH, _fish, "({})".format),
}
