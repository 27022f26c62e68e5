"""Write the measured part of docs/layout.md: rooms, files, and arrows between rooms. ``python docs/rooms.py``

The arrows are the package's imports; one that follows from two others is left out. The words are the first line of
each file's docstring.
"""

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / 'nextvit_mm'
PAGE = Path(__file__).resolve().parent / 'layout.md'
MARK = '<!-- What follows is written by docs/rooms.py. -->'
EVERYBODYS = {'errors', 'needed', 'version'}  # files of a few lines


def measure_arrows(package: Path = PACKAGE) -> dict[str, set[str]]:
    """For every room, the rooms that its files import, inside functions too."""
    rooms = {path.parent.name for path in package.glob('*/__init__.py')}
    arrows: dict[str, set[str]] = {room: set() for room in rooms}
    for room in rooms:
        for file in package.joinpath(room).rglob('*.py'):
            depth = len(file.relative_to(package).parts)  # dots that lead out of the room
            for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
                if isinstance(node, ast.ImportFrom) and node.level == depth:
                    names = [node.module] if node.module else [alias.name for alias in node.names]
                    arrows[room] |= {name.split('.')[0] for name in names} - EVERYBODYS - {room}
    return arrows


def reachable(arrows: dict[str, set[str]], room: str) -> set[str]:
    """All rooms that a room imports, directly or through others."""
    found: set[str] = set()
    to_see = list(arrows[room])
    while to_see:
        other = to_see.pop()
        if other not in found:
            found.add(other)
            to_see += arrows[other]
    return found


def draw(arrows: dict[str, set[str]]) -> str:
    """The arrows in Mermaid's notation."""
    lines = ['flowchart TD']
    for room in sorted(arrows):
        implied = set().union(*(reachable(arrows, other) for other in arrows[room]))
        lines += [f'    {room} --> {other}' for other in sorted(arrows[room] - implied)]
        if not arrows[room] and not any(room in others for others in arrows.values()):
            lines.append(f'    {room}')
    return '\n'.join(lines)


def list_files(package: Path = PACKAGE) -> str:
    """A table of the files of every room, with the first line of their docstrings."""
    lines = []
    for room in sorted(path.parent for path in package.glob('*/__init__.py')):
        lines += [f'### `{room.name}/`', '', first_line(room / '__init__.py'), '', '| file | |', '|---|---|']
        files = [file for file in sorted(room.glob('*.py')) if file.name != '__init__.py']
        lines += [f'| `{file.name}` | {first_line(file)} |' for file in files] + ['']
    return '\n'.join(lines).rstrip()


def first_line(file: Path) -> str:
    text = ast.get_docstring(ast.parse(file.read_text(encoding='utf-8'))) or ''
    return text.split('\n')[0].replace('``', '`').replace(':mod:', '')


def measured() -> str:
    return f'```mermaid\n{draw(measure_arrows())}\n```\n\n{list_files()}\n'


def main() -> None:
    before, _, _ = PAGE.read_text(encoding='utf-8').partition(MARK)
    PAGE.write_text(f'{before}{MARK}\n\n{measured()}', encoding='utf-8')


if __name__ == '__main__':
    main()
