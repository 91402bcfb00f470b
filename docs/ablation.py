"""The ablation: what masking, fill, spans, losses and joint training are each worth, on generated data.

    python docs/ablation.py [--out runs/ablation] [--seeds 3] [--jobs 2]

Resumable: a row that has its scores is not run again. Writes docs/ablation.md's table and figure beside them.
The backbone is trained once, on images; every row below it trains the sequence model on that backbone's
cached features, unless its name says `images`. Every model is then scored with 0, 25, 50 and 75 % of the
validation frames removed, the same frames for every model.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

REMOVED = (0.0, 0.25, 0.5, 0.75)
TASKS = {"va": "VA CCC", "expr": "EXPR F1", "au": "AU F1"}

ROWS: dict[str, list[str]] = {
    "one frame": ["--model.temporal.layers", "0", "--model.masking", "null"],
    "transformer, p = 0": ["--model.masking", "null"],
    "p = .25": ["--model.masking.ratio", "0.25"],
    "p = .5": [],
    "p = .75": ["--model.masking.ratio", "0.75"],
    "p = .5, zero fill": ["--model.temporal.fill", "zero"],
    "p = .5, spans of 8": ["--model.masking.span", "8"],
    "p = .5, cross-entropy": ["--model.loss.expr", "ce", "--model.loss.au", "bce"],
    "p = .5, MSE for VA": ["--model.loss.va", "mse"],
    "p = .5, VA alone": ["--data.tasks", "[va]"],
    "p = .5, EXPR alone": ["--data.tasks", "[expr]"],
    "p = .5, AU alone": ["--data.tasks", "[au]"],
}
