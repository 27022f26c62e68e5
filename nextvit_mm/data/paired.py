"""Pictures and class maps in pairs, wherever they lie and whatever they are called."""

import os

from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS


@DATASETS.register_module()
class PairedSegDataset(BaseDataset):
    """A segmentor's data from a list of pairs: one line each, a picture and its class map, with a tab between.

    MMSegmentation's own sets take one suffix for all pictures and the same name for both of a pair, which the folders
    of most labelling tools have not.

    Args:
        ann_file: The list; its paths are below ``data_root``, or whole.
        reduce_zero_label: 0 is no class, and the classes begin with 1. Default False.
        label_map: Values of the class maps that stand for other labels. Default None.
        kwargs: As of MMEngine's BaseDataset; ``metainfo`` has ``classes`` and ``palette``.
    """

    def __init__(self, ann_file: str, reduce_zero_label: bool = False, label_map: dict | None = None, **kwargs) -> None:
        self.reduce_zero_label = reduce_zero_label
        # Keys of a config's dict that was written to a file and read again are numbers still; those of JSON are not.
        self.label_map = {int(old): new for old, new in label_map.items()} if label_map else None
        super().__init__(ann_file=ann_file, **kwargs)
        self._metainfo.update(reduce_zero_label=reduce_zero_label, label_map=self.label_map)

    def load_data_list(self) -> list[dict]:
        """The pairs, as MMSegmentation's transforms take them."""
        with open(self.ann_file, encoding='utf-8') as file:
            pairs = [line.rstrip('\n').split('\t') for line in file if line.strip()]
        root = self.data_root or ''
        return [
            dict(
                img_path=os.path.join(root, picture),
                seg_map_path=os.path.join(root, class_map),
                label_map=self.label_map,
                reduce_zero_label=self.reduce_zero_label,
                seg_fields=[],
            )
            for picture, class_map in pairs
        ]
