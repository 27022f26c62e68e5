import pytest

from nextvit_mm.reproduction import tables


@pytest.fixture(scope='session', autouse=True)
def counted_once():
    """The complexity of a recipe's model is counted once a worker, however many tables show it."""
    found, count = {}, tables.count_complexity

    def remember(config, *args):
        key = (config.pretty_text, *args)
        if key not in found:
            found[key] = count(config, *args)
        return found[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, 'count_complexity', remember)
        yield
