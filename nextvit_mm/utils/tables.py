"""Tables as text, Markdown or CSV."""

import csv
from collections.abc import Container, Sequence
from typing import TextIO

STYLES = ('text', 'markdown', 'csv')
WIDE = 1000  # columns: a narrower terminal wraps the lines; nothing is cut off


def format_table(
    header: Sequence[str],
    lines: Sequence[Sequence[str]],
    style: str = 'text',
    left: Container[int] = (0,),
    caption: str | None = None,
) -> str:
    """A table, columns aligned, as ``'text'`` or ``'markdown'``.

    Args:
        header, lines: The cells.
        style: Of :data:`STYLES`, other than ``'csv'``.
        left: Columns of text, by number; the others are figures, and aligned to the right.
        caption: A line above it, in text only. In text, headings break after a colon.

    Returns:
        str: Its lines, without an empty one and without spaces at their ends.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    text = style == 'text'
    grid = Table(title=caption if text else None, box=box.SIMPLE_HEAD if text else box.MARKDOWN, padding=(0, 1))
    for i, name in enumerate(header):
        name = name.replace(': ', ':\n') if text else name
        grid.add_column(Text(name), justify='left' if i in left else 'right', no_wrap=True)
    for line in lines:
        grid.add_row(*map(Text, line))  # as it is: brackets would be markup
    console = Console(width=WIDE, color_system=None)
    with console.capture() as capture:
        console.print(grid)
    written = [line.rstrip() for line in capture.get().splitlines() if line.strip()]
    if not text:  # rich's rule does not say how columns are aligned
        rules = [rule if i in left else f'{rule[:-1]}:' for i, rule in enumerate(written[1].strip('|').split('|'))]
        written[1] = f'|{"|".join(rules)}|'
    return '\n'.join(written)


def write_csv(header: Sequence[str], lines: Sequence[Sequence[str]], file: TextIO, text_columns: int = 1) -> None:
    """Write a table as CSV, every column under a name of its own.

    Headings such as ``'AP: paper', 'ours'`` are a group: they become ``'AP: paper', 'AP: ours'``. The first
    ``text_columns`` are in none.
    """
    group, names = '', []
    for name in header:
        group = name.split(':')[0] if ':' in name and not name.startswith('paper') else group
        names.append(name if name in header[:text_columns] or ':' in name or not group else f'{group}: {name}')
    csv.writer(file, lineterminator='\n').writerows([names, *lines])


def print_table(
    header: Sequence[str],
    lines: Sequence[Sequence[str]],
    style: str,
    file: TextIO,
    caption: str = '',
    notes: Sequence[str] = (),
    text_columns: int = 1,
) -> None:
    """Write a table in one of :data:`STYLES`, and notes below it; CSV has neither caption nor notes."""
    if style == 'csv':
        write_csv(header, lines, file, text_columns)
        return
    file.write(format_table(header, lines, style, range(text_columns), caption) + '\n\n')
    for note in notes:
        file.write(('- ' if style == 'markdown' else '') + note + '\n')
