"""Tables 1, 2, 7, 8 and 9: every row's network, counted and timed."""

import copy
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch

from ..adapt.network import NETWORK_KEYS
from ..benchmark.candidates import photographs, settle_norms
from ..benchmark.complexity import Complexity, count_complexity
from ..benchmark.machine import describe_machine
from ..benchmark.rounds import Run, Timer
from ..deploy.fold import fold
from ..models import NextViT
from ..published import ABLATION_TABLES, load_ablation
from ..training.config import config_file, load_config
from ..utils.progress import hush

LATENCY_SHAPE = (8, 3, 224, 224)  # the paper's


@dataclass
class AblationRow:
    """A row of an ablation table.

    Attributes:
        table, name: Which.
        config: Name of its config in ``configs/ablation``; ``''`` for a network that is not this project's.
        paper: Printed values: ``tensorrt_ms``, ``top1``, ``box_ap``, ``miou``.
        complexity: Of its classifier at 224×224.
        latency: Median time of the folded backbone, s; None where not measured.
        ratio: The latency over that of Next-ViT-S, measured in the same rounds.
        results: By task, what each finished run on the demo data reached, in % (see :data:`.ablation_runs.TASKS`).
    """

    table: int
    name: str
    config: str
    paper: dict[str, str]
    complexity: Complexity | None = None
    latency: float | None = None
    ratio: float | None = None
    results: dict[str, list[dict]] = field(default_factory=dict)


def load_rows(number: int) -> list[AblationRow]:
    """The rows of a table, as printed, with what their classifiers have and do.

    Raises:
        UserError: It is no table of ablations.
    """
    rows = []
    for printed in load_ablation(number):
        row = AblationRow(
            number,
            printed['row'],
            printed['config'],
            {key: printed[key] for key in ('tensorrt_ms', 'top1', 'box_ap', 'miou')},
        )
        if row.config:
            row.complexity = count_complexity(load_config(str(row_file(row.config))))
        rows.append(row)
    return rows


def row_file(config: str) -> Path:
    """The config file of a row."""
    return config_file(f'ablation/{config}')


def network(config: str) -> dict:
    """What makes a row's network what it is: arch, norm and activation of its backbone."""
    return copy.deepcopy(_network(config))


@cache  # reading a config takes MMEngine half a second
def _network(config: str) -> dict:
    backbone = load_config(str(row_file(config))).model.backbone.to_dict()
    return {key: backbone[key] for key in NETWORK_KEYS if key in backbone}


def first_with_same_network(config: str) -> str:
    """The first row, over all tables, whose network is this one's: it is trained and timed once for all of them."""
    wanted = _network(config)
    return next(
        printed['config']
        for number in ABLATION_TABLES
        for printed in load_ablation(number)
        if printed['config'] and _network(printed['config']) == wanted
    )


def measure_latencies(
    rows: Sequence[AblationRow], rounds: int = 5, seed: int = 0, shape: Sequence[int] = LATENCY_SHAPE
) -> dict[str, Any]:
    """Time the rows' folded backbones on the CPU, in interleaved rounds, beside Next-ViT-S.

    Channels-last, float32, random weights. Gives the rows their ``latency`` and ``ratio``.

    Returns:
        dict: The machine (:func:`nextvit_mm.benchmark.machine.describe_machine`).
    """
    image = photographs(shape, seed).contiguous(memory_format=torch.channels_last)
    reference = first_with_same_network('table8_r075')
    names = list(dict.fromkeys([reference] + [first_with_same_network(row.config) for row in rows if row.config]))
    runs: dict[object, Run] = {}
    for name in names:
        torch.manual_seed(seed)
        model = NextViT(**network(name)).eval()
        settle_norms(model, (64, 64), seed)
        runs[name] = _forward(fold(model).to(memory_format=torch.channels_last), image)
    machine = describe_machine()
    times = Timer(rounds, 1, 0.2, seed, 'cpu').measure(runs, 'latency')
    hush()
    medians = {name: statistics.median(times[name]) for name in names}
    for row in rows:
        if row.config:
            row.latency = medians[first_with_same_network(row.config)]
            row.ratio = row.latency / medians[reference]
    return machine


def _forward(model: torch.nn.Module, image: torch.Tensor) -> Run:
    def run() -> tuple[torch.Tensor, ...]:
        with torch.no_grad():
            return model(image)

    return run
