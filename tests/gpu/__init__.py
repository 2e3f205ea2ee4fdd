"""One command that checks and measures what this project does on a GPU; `python -m tests.gpu`, see __main__.py."""
