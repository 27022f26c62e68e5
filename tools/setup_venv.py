"""Make the virtual environment that `make demo` and `make test` use: one line a step, done steps are skipped.

Runs on the system's Python with nothing installed. Each finished step leaves a stamp in the environment, so that an
interrupted set-up goes on where it stopped. Packages are installed by uv, in a third of pip's time. Where uv fails, pip
is tried: pip works in some networks where uv does not.
"""

import argparse
import ast
import hashlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ((3, 10), (3, 13))  # oldest and newest that the tested torch is built for
TESTED_PYTHON = (3, 11)
NEEDED_GB = 8.0  # the environment takes 6.6 GB; what is downloaded needs some room beside it
REPORT_EVERY = 60  # seconds between progress lines where the output is no terminal
TESTED, COMPILED = 'tested.txt', 'compiled.txt'  # in requirements/
SETUPTOOLS = 'setuptools<81'
UV = 'uv>=0.5,<1'
UV_INSTALL = '-m uv pip install'
SOURCES = {  # pip's settings, and uv's variables of the same meaning
    'index-url': 'UV_DEFAULT_INDEX',
    'extra-index-url': 'UV_INDEX',
    'find-links': 'UV_FIND_LINKS',
    'no-index': 'UV_OFFLINE',
    'constraint': 'UV_CONSTRAINT',
    'trusted-host': 'UV_INSECURE_HOST',
    'timeout': 'UV_HTTP_TIMEOUT',
    'cert': 'SSL_CERT_FILE',
    'proxy': 'ALL_PROXY',
}
KIND = 'requirements'  # the stamp that says which of the two an environment is made from


class Step(NamedTuple):
    """One command, what the user is told of it, and what its stamp depends on."""

    title: str
    how_long: str
    command: list[str]
    env: dict[str, str] = {}
    depends_on: str = ''


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('venv', nargs='?', default='.venv', type=Path, help='where (default: .venv)')
    parser.add_argument(
        '--compiled-ops',
        action='store_true',
        help='build mmcv with its own operators (requirements/compiled.txt); without it they come from torchvision',
    )
    args = parser.parse_args()
    venv = args.venv.absolute()
    compiled = choose_operators(venv, args.compiled_ops)
    check_machine(venv, compiled)
    python = make_venv(venv)
    (venv / 'stamps' / KIND).write_text(COMPILED if compiled else TESTED)
    steps = list_steps(python, compiled)
    for number, step in enumerate(steps, start=1):
        run_step(venv, step, f'[{number}/{len(steps)}] {step.title}')


def choose_operators(venv: Path, wanted: bool) -> bool:
    """Whether mmcv is built with its own operators: as an environment began, else as the user says."""
    stamp = venv / 'stamps' / KIND
    if not stamp.is_file():
        return wanted
    compiled = stamp.read_text() == COMPILED
    if wanted and not compiled:
        fail(
            f"{venv} was made without mmcv's compiled operators: remove it, or choose another place with "
            '`make COMPILED_OPS=1 VENV=DIR …`'
        )
    return compiled


def check_machine(venv: Path, compiled: bool) -> None:
    """Stop before anything is downloaded where the set-up cannot succeed."""
    version = sys.version_info[:2]
    if not PYTHONS[0] <= version <= PYTHONS[1]:
        fail(
            'Python {}.{} is not supported: use one from {}.{} to {}.{}, as in `make PYTHON=python3.11 test`'.format(
                *version, *PYTHONS[0], *PYTHONS[1]
            )
        )
    if version != TESTED_PYTHON:
        print('note: tested with Python {}.{} only; this is {}.{}'.format(*TESTED_PYTHON, *version))
    if compiled:
        check_compiler()
    if not importlib.util.find_spec('ensurepip'):
        fail('this Python cannot make virtual environments with pip: install its venv (Debian: python3-venv)')
    if not (venv / 'stamps').is_dir():
        place = next(p for p in (venv, *venv.parents) if p.exists())
        free = shutil.disk_usage(place).free / 1e9
        if free < NEEDED_GB:
            fail(
                f'{place} has {free:.1f} GB free, and the environment needs {NEEDED_GB:.0f}: make room, or choose '
                'another place with `make VENV=DIR …`'
            )


def check_compiler() -> None:
    if not shutil.which(shlex.split(os.environ.get('CXX', 'c++'))[0]):
        fail(
            "no C++ compiler, which mmcv's own operators need: install one (Debian: apt-get install g++), set CXX, or "
            'leave COMPILED_OPS out'
        )
    header = Path(sysconfig.get_paths()['include'], 'Python.h')
    if not header.is_file():
        fail(
            f"{header} is missing, which mmcv's own operators need: install Python's headers (Debian: "
            'python3-dev), or leave COMPILED_OPS out'
        )


def make_venv(venv: Path) -> Path:
    """The environment's Python; a half-made environment is completed, and any other folder is left alone."""
    if venv.exists() and any(venv.iterdir()) and not (venv / 'stamps').is_dir():
        fail(
            f'{venv} exists and was not made by this set-up: remove it, or choose another place with `make VENV=DIR …`'
        )
    (venv / 'stamps').mkdir(parents=True, exist_ok=True)
    python = venv / 'bin' / 'python'
    works = (
        python.exists()
        and subprocess.run(
            [python, '-c', 'import pip'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ).returncode
        == 0
    )
    if not works:
        print(f'making {venv}', flush=True)
        if subprocess.run([sys.executable, '-m', 'venv', venv]).returncode:
            fail(f'`python -m venv {venv}` failed (its output is above)')
    return python


def list_steps(python: Path, compiled: bool = False) -> list[Step]:
    requirements = ROOT / 'requirements' / (COMPILED if compiled else TESTED)
    tested = requirements.read_text()
    pins = dict(line.split('==') for line in tested.splitlines() if '==' in line)
    install = [str(python), *UV_INSTALL.split(), '--python', str(python)]

    def pinned(*names: str) -> list[str]:
        return [f'{name}=={pins[name]}' for name in names]

    project = (ROOT / 'pyproject.toml').read_text()
    check = ROOT / 'tools' / 'check_install.py'
    mmcv = (
        [
            # In an isolated build mmcv would find no torch, and leave its operators out without a word.
            Step(
                'mmcv with its operators',
                'built here: about 11 min on 2 cores; seconds when uv has the wheel in its cache',
                [*install, '-v', '--no-build-isolation', *pinned('mmcv')],
                env=dict(MMCV_WITH_OPS='1'),
                depends_on=tested,
            )
        ]
        if compiled
        else []
    )
    return [
        Step('uv, which installs the rest', 'seconds', as_pip([*install, UV])),
        # MMEngine and mmcv's build import pkg_resources, which setuptools 81 dropped.
        Step(
            'torch',
            'about 20 s and the download of 3 GB; 5 GB on disk',
            [*install, SETUPTOOLS, *(['wheel', 'ninja'] if compiled else []), *pinned('torch', 'torchvision')],
        ),
        *mmcv,
        Step(
            'the MM libraries, nextvit_mm (editable) and what its tests need',
            'about 10 s and the download',
            [*install, SETUPTOOLS, *pinned(*pins), '--editable', f'{ROOT}[all]'],
            depends_on=tested + project,
        ),
        *(
            []
            if compiled
            else [
                Step(
                    "mmcv's operators for every script of this environment",
                    'about 10 s',
                    [str(python), '-m', 'nextvit_mm.ops', '--install'],
                    depends_on=tested + project + (ROOT / 'nextvit_mm' / 'ops' / 'environment.py').read_text(),
                )
            ]
        ),
        Step(
            'check that it all works together',
            'about 20 s',
            [str(python), str(check)],
            depends_on=tested + project + check.read_text(),
        ),
    ]


def run_step(venv: Path, step: Step, heading: str) -> None:
    key = hashlib.sha256(repr((step.command, step.env, step.depends_on)).encode()).hexdigest()
    stamp = venv / 'stamps' / re.sub(r'\W+', '-', step.title)
    if stamp.is_file() and stamp.read_text() == key:
        return
    print(f'{heading} ({step.how_long})', flush=True)
    log = venv / 'setup.log'
    start = time.monotonic()
    status = run_logged(step.command, step, log)
    if status and UV_INSTALL in ' '.join(step.command):
        print('      uv failed: trying pip, which takes longer', flush=True)
        status = run_logged(as_pip(step.command), step, log, mode='a')  # uv's words stay
    if status:
        tail = log.read_text(errors='replace').splitlines()[-15:]
        fail(
            '\n'.join(
                [
                    *tail,
                    f'`{step.title}` failed; all of its output is in {log}. Run the command again to go on from here.',
                ]
            )
        )
    print(f'      done in {clock(time.monotonic() - start)}', flush=True)
    stamp.write_text(key)


def as_pip(command: list[str]) -> list[str]:
    """pip's command for one of uv's."""
    python, arguments = command[0], command[command.index('--python') + 2 :]
    return [python, '-m', 'pip', 'install', '--disable-pip-version-check', *arguments]


def run_logged(command: list[str], step: Step, log: Path, mode: str = 'w') -> int:
    """Run a step's command, its output into the log; the time and what the log says last onto the screen."""
    env = {**list_package_sources(command[0]), **os.environ, **step.env, 'PYTHONUNBUFFERED': '1'}
    env.pop('PYTHONDONTWRITEBYTECODE', None)  # the check leaves compiled what everything imports
    start, screen = time.monotonic(), sys.stdout.isatty()
    with open(log, mode) as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=env, cwd=ROOT)
        while True:
            try:
                status = process.wait(timeout=1 if screen else REPORT_EVERY)
            except subprocess.TimeoutExpired:
                text = f'      {clock(time.monotonic() - start)}{say_progress(log.read_text(errors="replace"))}'
                print(f'{text[:78]:78}' if screen else text, end='\r' if screen else '\n', flush=True)
            else:
                print(f'{"":78}\r' if screen else '', end='', flush=True)  # the next line may be shorter
                return status


def say_progress(output: str) -> str:
    """Of a build how many files are compiled (ninja's [n/m]), else the last line."""
    built = re.findall(r'^(?:DEBUG)? *\[(\d+/\d+)\]', output, re.MULTILINE)
    lines = output.split('\n')
    return f', compiled {built[-1]} files' if built else ''.join(f', {line.strip():.60}' for line in lines[-2:-1])


def list_package_sources(python: str) -> dict[str, str]:
    """Where pip is told to find packages, in uv's variables: uv does not read pip's configuration."""
    listed = subprocess.run([python, '-m', 'pip', 'config', 'list'], capture_output=True, text=True).stdout
    pip = dict.fromkeys(SOURCES, '')
    for section in ('global', 'install', ':env:'):  # a later one counts
        for key, value in re.findall(rf'^{section}\.([\w-]+)=(.*)$', listed, re.MULTILINE):
            between = ',' if key == 'find-links' else ' '  # of several
            pip[key.replace('default-', '')] = between.join(ast.literal_eval(value).split())
    # pip takes the best version of all indexes, uv that of the first one that has the package.
    return {'UV_INDEX_STRATEGY': 'unsafe-best-match', **{SOURCES[key]: pip[key] for key in SOURCES if pip[key]}}


def clock(seconds: float) -> str:
    return f'{int(seconds) // 60}:{int(seconds) % 60:02d} min'


def fail(message: str) -> None:
    sys.exit(f'set-up: {message}')


if __name__ == '__main__':
    main()
