"""Names of the files in a trial's folder, in the order in which they appear; a trial is finished when RESULT exists."""

CONFIG = "config.json"
METRICS = "metrics.jsonl"
CHECKPOINT = "checkpoint"
MODEL = "model.safetensors.zst"
NETWORK = "network.py"  # the source file of a custom network
RESULT = "result.json"
ERROR = "error.json"
LATENCY = "latency.json"  # measured after the trial
STOPPED = "stopped.json"  # why a search stopped the trial early; another sweep may continue it
