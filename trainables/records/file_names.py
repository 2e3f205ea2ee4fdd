"""Names of the files in a trial's folder, in the order in which they appear; a trial is finished when RESULT exists.

Apart from trial/checkpoint.py so that what only reads records need not import torch.
"""

CONFIG = "config.json"
METRICS = "metrics.jsonl"
CHECKPOINT = "checkpoint"
MODEL = "model.safetensors.zst"
NETWORK = "network.py"  # the source file of a network of the user's own
RESULT = "result.json"
ERROR = "error.json"
