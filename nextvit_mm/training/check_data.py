"""A look into the data of a config or of a folder, behind ``tools/check_data.py``."""

import os
import tempfile
from pathlib import Path

from ..data.check import check_contents
from ..data.configured import read_config_data
from ..data.inspect import Report, look, read_any
from ..data.own import Data, describe
from ..data.sheet import draw_sheet
from ..errors import UserError
from ..utils.figures import check_png
from .config import load_config, set_data_root, set_work_dir
from .preflight import check_data


def check(source: str, data_root: str | None = None, cfg_options: dict | None = None, out: str | None = None) -> Report:
    """Look into data, print what is there and what is doubtful, and draw a sheet of annotated pictures.

    Args:
        source: A config, or a folder of data in a layout that ``--own-classes`` reads.
        data_root, cfg_options: As in :func:`nextvit_mm.training.launch.train`; for a config.
        out: ``.png`` file of the sheet. Default: ``work_dirs/check_data/<name>.png``.

    Returns:
        Report: The lines that were printed.

    Raises:
        UserError: Something would stop a run, or teach the wrong thing; one line each.
    """
    if not os.path.exists(source):
        raise UserError(f'{source} is neither a config nor a folder')
    sheet = Path(out or Path('work_dirs', 'check_data', f'{Path(os.path.abspath(source)).stem}.png'))
    check_png(sheet)
    with tempfile.TemporaryDirectory() as folder:
        if os.path.isdir(source):
            data: Data = read_any(Path(source), Path(folder))
        else:
            cfg = load_config(source, cfg_options)
            set_work_dir(cfg, folder)
            if data_root:
                set_data_root(cfg, data_root)
            check_data(cfg, ('train', 'val'))
            check_contents(cfg, ('train', 'val'))
            data = read_config_data(cfg)
        report = look(data)
        print(describe(data, Path(source))[0])
        for line in report.lines:
            print(line)
        for warning in report.warnings:
            print(f'warning: {warning}')
        if report.errors:
            raise UserError('\n'.join(report.errors))
        print(f'written: {draw_sheet(data, sheet)}')
    return report
