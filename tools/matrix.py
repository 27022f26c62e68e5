"""Run the core of the tests with other versions: one environment a row, removed afterwards; the results as a table.

    python tools/matrix.py [ROW …] [--keep]

Without names, every row. A row's result stays in .matrix/<row>.json until the row is run again, and the table, which is
also written to .matrix/table.md, is of all of them: one row at a time does.
"""

import argparse
import datetime
import json
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / '.matrix'
NEEDED_GB = 8  # torch and its CUDA libraries take 5.5, pip's unpacking some more for a while
# What is run in each row: the network against timm's, weights, names of configs, a training and a test step of a
# detector (which needs mmcv's operators) and of a segmentor.
CORE = (
    'tests/models/test_arch.py',
    'tests/models/test_blocks.py',
    'tests/models/test_nextvit.py',
    'tests/models/test_timm_parity.py',
    'tests/weights/test_keys.py',
    'tests/weights/test_weights.py',
    'tests/configs/test_recipes.py',
    'tests/configs/test_metafiles.py',
)
ONE_SIZE = 'not base and not large and not nextvit_b and not nextvit_l and not upernet and not released and not 3x'
EXTRAS = 'weights,demo,analysis'
TOOLS = ('timm', 'pytest')  # what the core needs beside these extras
SHOWN = ('torch', 'torchvision', 'mmcv', 'mmengine', 'mmdet', 'mmseg', 'mmpretrain', 'numpy')
DISTRIBUTIONS = dict(
    mmcv=('mmcv', 'mmcv-lite'),
    mmengine=('mmengine', 'onedl-mmengine'),
    mmdet=('mmdet', 'onedl-mmdetection'),
    mmseg=('mmsegmentation', 'onedl-mmsegmentation'),
    mmpretrain=('mmpretrain', 'onedl-mmpretrain'),
)


class Row(NamedTuple):
    """One environment: what of ``requirements/`` it holds, and the Python that is looked for on the PATH."""

    name: str
    requirements: str
    python: str


ROWS = (
    Row('oldest', 'oldest', '3.10'),
    Row('tested', 'tested', '3.11'),
    Row('tested-3.10', 'tested', '3.10'),
    Row('tested-3.12', 'tested', '3.12'),
    Row('tested-3.13', 'tested', '3.13'),
    Row('newest', 'newest', '3.13'),
    Row('onedl', 'onedl', '3.11'),
)


class NotRun(Exception):
    """Why a row could not be run here."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [row.name for row in ROWS]
    parser.add_argument('rows', nargs='*', metavar='ROW', help=f'which of {", ".join(names)} (default: all)')
    parser.add_argument('--keep', action='store_true', help='leave the environments, 5 to 6 GB each, in .matrix')
    args = parser.parse_args()
    unknown = sorted(set(args.rows) - set(names))
    if unknown:
        parser.error(f'there is no row {", ".join(unknown)}: choose from {", ".join(names)}')
    FOLDER.mkdir(exist_ok=True)
    chosen = [row for row in ROWS if not args.rows or row.name in args.rows]
    for row in chosen:
        result = run_row(row, args.keep)
        (FOLDER / f'{row.name}.json').write_text(json.dumps(result, indent=1))
    text = table(read_results())
    (FOLDER / 'table.md').write_text(text)
    print(text)
    sys.exit(
        any(
            result.get('failed') or 'not_run' in result
            for name, result in read_results().items()
            if name in {row.name for row in chosen}
        )
    )


def run_row(row: Row, keep: bool) -> dict:
    """Make the row's environment and run the core in it: counts and versions, or ``not_run`` with the reason."""
    print(f'{row.name}: Python {row.python}, requirements/{row.requirements}.txt', flush=True)
    folder = FOLDER / row.name
    shutil.rmtree(folder, ignore_errors=True)
    result = dict(date=datetime.date.today().isoformat(), python=row.python)
    try:
        python = make_environment(row, folder)
        result.update(versions=installed(python, row), **run_core(python, folder))
    except NotRun as error:
        print(f'{row.name}: not run: {error}', flush=True)
        result['not_run'] = str(error)
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)
    return result


def make_environment(row: Row, folder: Path) -> Path:
    """A virtual environment with the row's requirements, this package and what the core needs; returns its Python."""
    base = f'python{row.python}'
    found = subprocess.run([base, '--version'], capture_output=True) if shutil.which(base) else None
    if found is None or found.returncode:  # a version manager's stand-in is there, and fails
        raise NotRun(f'no {base} on the PATH')
    if shutil.disk_usage(FOLDER).free < NEEDED_GB * 1e9:
        raise NotRun(f'less than {NEEDED_GB} GB free')
    log = FOLDER / f'{row.name}.log'
    log.unlink(missing_ok=True)
    python = folder / 'bin' / 'python'
    pip = [str(python), '-m', 'pip', 'install', '--disable-pip-version-check']
    listed = ROOT / 'requirements' / f'{row.requirements}.txt'
    lines = read_requirements(row)
    alone = [line for line, remark in lines.items() if remark == 'alone']
    steps = [
        [base, '-m', 'venv', str(folder)],
        [*pip, 'setuptools>=77,<81', 'wheel'],  # 77: onedl's licence field; below 81: pkg_resources, for mmcv
        [*pip, '--no-build-isolation', *(line for line in lines if line not in alone)],
        *([[*pip, '--no-build-isolation', '--no-deps', *alone]] if alone else []),
        [
            *pip,
            '--no-build-isolation',
            '--constraint',
            str(listed),
            '--editable',
            f'{ROOT}[{EXTRAS}]',
            *TOOLS,
            *(['ftfy', 'regex'] if any('mmseg' in line for line in lines) else []),
        ],
    ]
    for command in steps:
        with open(log, 'a') as out:
            out.write(f'$ {" ".join(command)}\n')
            out.flush()
            if subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, cwd=FOLDER).returncode:
                raise NotRun(f'its installation failed, see {log.relative_to(ROOT)}')
    return python


def read_requirements(row: Row) -> dict[str, str]:
    """The lines of a row's file, each with the remark behind it: ``alone``, where pip's ``--no-deps`` is meant."""
    listed = (ROOT / 'requirements' / f'{row.requirements}.txt').read_text().splitlines()
    pairs = [line.partition('#') for line in listed]
    return {line.strip(): remark.strip() for line, _, remark in pairs if line.strip()}


def installed(python: Path, row: Row) -> dict[str, str]:
    """Every distribution of the environment with its version.

    Raises:
        NotRun: Installing this package has changed a version that the row's file pins.
    """
    code = (
        'import json, importlib.metadata as m; print(json.dumps({d.metadata["Name"]: d.version for d in '
        'm.distributions()}))'
    )
    listed = json.loads(subprocess.check_output([python, '-c', code]))
    found = {normal(name): version for name, version in listed.items()}
    for line in read_requirements(row):
        name, _, version = line.partition('==')
        if version and found.get(normal(name)) != version:
            raise NotRun(f'{line} is asked for, and {found.get(normal(name))} was installed')
    doubled = [pair for pair in DISTRIBUTIONS.values() if all(name in found for name in pair)]
    if doubled:
        raise NotRun(f'two distributions of one module are installed: {" and ".join(doubled[0])}')
    return found


def run_core(python: Path, folder: Path) -> dict[str, int]:
    """Counts of the core's tests; what failed is in ``.matrix/<row>.log``."""
    report = folder / 'report.xml'
    log = FOLDER / f'{folder.name}.log'
    with open(log, 'a') as out:
        subprocess.run(
            [python, '-m', 'pytest', *CORE, '-k', ONE_SIZE, '-p', 'no:cacheprovider', f'--junitxml={report}'],
            cwd=ROOT,
            env={**os.environ, 'PYTHONPATH': str(ROOT)},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    if not report.is_file():
        raise NotRun(f'pytest did not run, see {log.relative_to(ROOT)}')
    suite = next(ElementTree.parse(report).iter('testsuite'))
    count = {name: int(suite.get(name, 0)) for name in ('tests', 'failures', 'errors', 'skipped')}
    failed = count['failures'] + count['errors']
    return dict(passed=count['tests'] - failed - count['skipped'], failed=failed, skipped=count['skipped'])


def read_results() -> dict[str, dict]:
    files = {row.name: FOLDER / f'{row.name}.json' for row in ROWS}
    return {name: json.loads(file.read_text()) for name, file in files.items() if file.is_file()}


def table(results: dict[str, dict]) -> str:
    """All rows as Markdown; of a row that was not run, why."""
    lines = [
        f'| row | Python | {" | ".join(SHOWN)} | passed | failed | skipped | date |',
        '|---' * (len(SHOWN) + 6) + '|',
    ]
    for row in ROWS:
        result = results.get(row.name, dict(not_run='never started here'))
        if 'not_run' in result:
            cells = [f'not run: {result["not_run"]}'] + [''] * (len(SHOWN) + 2)
        else:
            cells = [shown(result['versions'], module) for module in SHOWN]
            cells += [str(result[name]) for name in ('passed', 'failed', 'skipped')]
        lines.append(f'| {row.name} | {row.python} | {" | ".join(cells)} | {result.get("date", "")} |')
    return '\n'.join(lines) + '\n'


def shown(versions: dict[str, str], module: str) -> str:
    """The version of a module, with its distribution's name where that is not the usual one; a dash for none."""
    names: list[str] = list(DISTRIBUTIONS.get(module, (module,)))
    name: str | None = next((name for name in names if name in versions), None)
    return '–' if name is None else versions[name] if name == names[0] else f'{name} {versions[name]}'


def normal(name: str) -> str:
    return name.lower().replace('_', '-')


if __name__ == '__main__':
    main()
