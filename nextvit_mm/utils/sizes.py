"""Height and width, as people give them."""

from collections.abc import Sequence

from ..errors import UserError


def parse_size(value: int | Sequence[int] | None, flag: str = 'a size') -> list[int] | None:
    """One or two numbers of pixels as two; None stays None.

    Raises:
        UserError: It is something else; ``flag`` names what was given.
    """
    if value is None:
        return None
    sides = [value] if isinstance(value, int) else list(value)
    if len(sides) not in (1, 2) or not all(isinstance(side, int) and side > 0 for side in sides):
        raise UserError(f'{flag} is one or two whole numbers of pixels, not {" ".join(map(str, sides)) or "none"}')
    return sides * 2 if len(sides) == 1 else sides
