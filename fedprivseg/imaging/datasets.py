"""The layouts of images on disk that a scenario may name, and the one that a folder has.

Adding one is its file and one line in `DATASETS`; another package adds one by an entry point in ``fedprivseg.datasets``.
"""

from __future__ import annotations

from pathlib import Path

from fedprivseg.core.config import DataConfig
from fedprivseg.core.plugins import Registry
from fedprivseg.imaging.dataset import Dataset
from fedprivseg.imaging.mnms.release import MnMs
from fedprivseg.imaging.nnunet import NnUNet

DATASETS: Registry[type[Dataset]] = Registry("dataset", Dataset, (MnMs, NnUNet))


def dataset_of(data: DataConfig, folder: Path) -> Dataset:
    """The data set of a scenario, or of a site's own configuration.

    Args:
        data: what it says of its images.
        folder: where they are; ``data.source`` may name a phantom instead.

    Raises ScenarioError for an unknown ``data.format``, naming the known ones.
    """
    if data.format:
        return DATASETS.find(data.format)(data.channel)
    # A folder that looks like nothing is read as M&Ms, whose reader says what is missing.
    return next((each for each in DATASETS if each.recognises(folder)), MnMs)(data.channel)
