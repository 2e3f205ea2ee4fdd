"""Where a process works, read from the stacks of its threads."""

from __future__ import annotations

from trainables.runtime.stacks import ROOT, place_in

STACKS = f"""Thread 0x00007f1 (most recent call first):
  File "{ROOT}/trainables/data/streaming.py", line 5 in read
  File "/usr/lib/python3.11/threading.py", line 1002 in _bootstrap

Thread 0x00007f2 (most recent call first):
  File "/usr/lib/python3.11/site-packages/torch/nn/modules/conv.py", line 9 in forward
  File "<frozen importlib._bootstrap>", line 2 in _find
  File "/home/me/nets.py", line 12 in forward
  File "{ROOT}/trainables/training/loop.py", line 60 in train_epoch
  File "{ROOT}/trainables/worker/trainable.py", line 60 in execute_stage

Current thread 0x00007f3 (most recent call first):
  File "/usr/lib/python3.11/site-packages/ray/main.py", line 9 in main
"""


def test_the_place_is_the_users_line_below_the_library_that_it_called() -> None:
    assert place_in(STACKS) == "nets.py line 12 (forward)"


def test_code_of_this_project_is_named_too() -> None:
    assert place_in(STACKS.replace("/home/me", "/usr/lib/python3.11")) == "loop.py line 60 (train_epoch)"


def test_no_place_is_better_than_a_library() -> None:
    assert place_in("a stopped process cannot write its stacks") == ""
    assert place_in('Thread 0x1 (most recent call first):\n  File "/usr/lib/python3.11/ssl.py", line 1 in read') == ""
