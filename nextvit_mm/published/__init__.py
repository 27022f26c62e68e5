"""The paper's tables and the authors' runs, as data."""

from .runs import (
    ABLATION_TABLES,
    TABLES,
    PublishedEpochs,
    PublishedRun,
    list_runs,
    load_ablation,
    load_errata,
    load_release,
    load_run,
    load_table,
)

__all__ = [
    'ABLATION_TABLES',
    'TABLES',
    'PublishedEpochs',
    'PublishedRun',
    'list_runs',
    'load_ablation',
    'load_errata',
    'load_release',
    'load_run',
    'load_table',
]
