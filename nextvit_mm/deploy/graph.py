"""From a model to the network that is exported: one image tensor in, arrays out, no MM structure in between.

The networks run the MM model's own modules; what comes after them in MMDetection is written here with operations that
every exporter knows. Inputs are (B, C, H, W), normalised, or colors from 0 to 255 where the network normalises itself.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError

TASKS = ('backbone', 'classification', 'segmentation', 'detection')
WHOLE = 'it cannot be exported whole, take --what backbone'


class Graph(nn.Module, ABC):
    """What is exported.

    Attributes:
        task (str): One of :data:`TASKS`.
        outputs (tuple[str]): Names of the outputs.
        class_count (int | None): Of how many classes its results are, where it tells.
    """

    task: str
    outputs: tuple[str, ...]
    class_count: int | None = None

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.register_buffer('mean', None)
        self.register_buffer('std', None)
        self.divisor, self.pad_value = 1, 0.0

    def normalize_inside(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Take colors from 0 to 255, and normalise them first."""
        self.mean, self.std = (torch.tensor(value).view(1, -1, 1, 1) for value in (mean, std))

    def forward(self, image: Tensor):
        return self.run(image if self.mean is None else (image - self.mean) / self.std)

    def pad_as(self, preprocessor: nn.Module) -> None:
        """Have :meth:`padded` pad as a model's preprocessor pads a batch of one normalised picture."""
        self.divisor = getattr(preprocessor, 'pad_size_divisor', 1)
        self.pad_value = float(getattr(preprocessor, 'pad_value', 0))

    def padded(self, image: Tensor) -> Tensor:
        bottom, right = ((size + self.divisor - 1) // self.divisor * self.divisor - size for size in image.shape[2:])
        return F.pad(image, (0, right, 0, bottom), value=self.pad_value)

    def check_size(self, height: int, width: int) -> None:
        """Refuse an input that is too small for the backbone.

        Raises:
            UserError: It is.
        """
        backbone = getattr(self.model, 'backbone', self.model)
        try:
            backbone._check_size(*(-(-side // self.divisor) * self.divisor for side in (height, width)))
        except ValueError as error:
            raise UserError(str(error)) from None

    @abstractmethod
    def run(self, image: Tensor):
        """The network itself, on a normalised image: as many tensors as :attr:`outputs`, or that one."""


class BackboneGraph(Graph):
    """Image -> the feature maps, ``stage1`` … in the order of ``out_indices``."""

    task = 'backbone'

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.outputs = tuple(f'stage{i + 1}' for i in model.out_indices)

    def run(self, image: Tensor) -> tuple[Tensor, ...]:
        return self.model(image)


class ClassifierGraph(Graph):
    """Image -> ``scores`` (B, classes): of one class a picture, which add up to 1, or of many labels, each in [0, 1].

    Attributes:
        multi_label (dict | None): Of many labels, the ``threshold`` from which or the number ``top`` of which count.
    """

    task = 'classification'
    outputs = ('scores',)

    def __init__(self, model: nn.Module) -> None:
        from mmpretrain.models.heads import ClsHead, MultiLabelClsHead

        super().__init__(model)
        if not model.with_head:
            raise UserError(f'this classifier has no head, and gives no scores: {WHOLE}')
        head, kind = model.head, type(model.head)
        many = isinstance(head, MultiLabelClsHead)
        base = MultiLabelClsHead if many else ClsHead
        own = [name for name in ('predict', '_get_predictions') if getattr(kind, name, None) is not getattr(base, name)]
        if own:
            raise UserError(f'{kind.__name__} predicts in a way of its own: {WHOLE}')
        if not many and getattr(head, 'num_classes', 2) == 1:
            raise UserError(f'{kind.__name__} has one class, whose score is 1 for every picture: train with two')
        self.pad_as(model.data_preprocessor)
        self.class_count = getattr(head, 'num_classes', None)
        self.multi_label = dict(threshold=head.thr, top=head.topk) if many else None

    def run(self, image: Tensor) -> Tensor:
        logits = self.model.head(self.model.extract_feat(self.padded(image)))
        return logits.softmax(1) if self.multi_label is None else logits.sigmoid()
