"""Fuzz runs: readers of files get damaged and malicious ones, and must refuse them as documented.

    python -m tests.fuzz codec|records|sweep-file --seconds 600 [--seed N]

To add a target, write its samples beside this file, and add it to TARGETS in __main__.py. With `atheris` installed, what a
mutant reaches in the code decides which are tried further; else they are drawn at random.
"""
