"""The faults, one family a file; table.py lists them."""
