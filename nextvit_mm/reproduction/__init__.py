from .hook import PublishedRunHook
from .published import PublishedRun, list_runs, load_errata, load_release, load_run, load_table

__all__ = ['PublishedRun', 'PublishedRunHook', 'list_runs', 'load_errata', 'load_release', 'load_run', 'load_table']
