"""A backbone by the name of its weights."""

from ..errors import WeightsError
from ..models import NextViT
from .zoo import ZOO


def get_model(name: str, pretrained: bool | str = False, **kwargs) -> NextViT:
    """Build a Next-ViT by name.

    Args:
        name: Published weights (:func:`list_models`), such as ``'nextvit-small_in1k'``, or a size, ``'small'``,
            ``'base'`` or ``'large'``.
        pretrained: True loads the published weights of that name (fetched once); a file, an address or
            ``hf-hub:…`` loads those. Default False.
        **kwargs: Arguments of :class:`nextvit_mm.NextViT`.

    Returns:
        NextViT: The backbone, initialised.

    Raises:
        WeightsError: There is no such name, or the weights are not to be had or do not fit.

    Example:
        >>> from nextvit_mm import get_model
        >>> backbone = get_model('nextvit-small_in1k', out_indices=(2, 3))
        >>> backbone.out_channels
        (512, 1024)
    """
    archs = sorted({entry.arch for entry in ZOO.values()})
    if name not in ZOO and name not in archs:
        raise WeightsError(f'{name!r} is not a Next-ViT: take a size ({", ".join(archs)}) or one of {", ".join(ZOO)}')
    if pretrained is True and name not in ZOO:
        weights = ', '.join(key for key, entry in ZOO.items() if entry.arch == name)
        raise WeightsError(f'{name!r} is a size; its published weights are {weights}')
    checkpoint = name if pretrained is True else pretrained
    if checkpoint and kwargs.get('init_cfg'):
        raise WeightsError('pretrained and init_cfg both say what the weights are: give one of them')
    if checkpoint:
        kwargs['init_cfg'] = dict(type='Pretrained', checkpoint=checkpoint)
    model = NextViT(ZOO[name].arch if name in ZOO else name, **kwargs)
    model.init_weights()
    return model
