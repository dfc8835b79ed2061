"""The server half of coded segmentation: the network from image codes to mask codes, trained, kept and asked."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import torch

from fedprivseg.core.errors import FolderError
from fedprivseg.core.models import ModelStore
from fedprivseg.core.records import Grid
from fedprivseg.core.seeds import building
from fedprivseg.core.task import Scope, SegmentationTask
from fedprivseg.methods.coded_encoders import started
from fedprivseg.methods.coded_parameters import PrivacySFParameters
from fedprivseg.methods.method import Codes, Federation
from fedprivseg.methods.outlying import handle, odd_codes, odd_losses, relative_error
from fedprivseg.nets.descent import Schedule, arithmetic
from fedprivseg.nets.fitting_mapping import SiteMapping, build_mapping, fit_mapping

MAPPING = "mapping"
"""The name under which the server keeps it."""


def trained_mapping(
    p: PrivacySFParameters, federation: Federation, images: Mapping[str, Codes], masks: Mapping[str, Codes]
) -> SiteMapping:
    """The network, trained on the sites' codes, or found again as an earlier attempt left it. Outlying sites are named, or left
    out and it is trained without them."""
    if (kept := federation.load_model(MAPPING)) is not None:
        found = _restored(p, federation.task, *kept)
        if found.sites == federation.sites:
            return found
    for what, codes in (("image", images), ("mask", masks)):
        handle(p, federation, odd_codes(what, {site: codes[site] for site in federation.sites}, p.outlying_spread))
    while True:
        mapping = _fitted(p, federation, images, masks)
        errors = {
            site: relative_error(images[site], masks[site], partial(answer, p, mapping, site, device=federation.device))
            for site in federation.sites
            if len(images[site])
        }
        if not handle(p, federation, odd_losses(errors, p.outlying_error)):
            break
    state = {name: value.cpu().numpy() for name, value in mapping.state_dict().items()}
    federation.save_model(MAPPING, state, {"sites": " ".join(mapping.sites)})
    return mapping


def _fitted(
    p: PrivacySFParameters, federation: Federation, images: Mapping[str, Codes], masks: Mapping[str, Codes]
) -> SiteMapping:
    """The network, trained on the codes of the sites that still take part."""
    mapping = untrained(p, federation.task, federation.sites, federation.seed)
    if p.start == "phantom":
        mapping.begin(started(federation, MAPPING))
    fit_mapping(
        mapping,
        {site: images[site] for site in federation.sites},
        {site: masks[site] for site in federation.sites},
        Schedule(p.mapping_steps, p.batch, p.mapping_rate, p.mapping_decay, averaging=p.mapping_averaging, half=p.half),
        federation.seed,
        ("server", "mapping"),
        standardise=p.standardise,
        device=federation.device,
        progress=lambda _, done, total: federation.progress("train mapping", done, total),
    )
    return mapping


def kept_mapping(p: PrivacySFParameters, task: SegmentationTask, models: ModelStore) -> SiteMapping:
    """The network as the server keeps it. Raises FolderError if it keeps none."""
    kept = models.load(MAPPING)
    if kept is None:
        raise FolderError("the server has no segmentation network; run the scenario again into this folder")
    return _restored(p, task, *kept)


def answer(p: PrivacySFParameters, mapping: SiteMapping, site: str, codes: np.ndarray, device: str) -> np.ndarray:
    """Predicted mask codes (n, C, h, w) float16 of a site's image codes (n, c, h, w)."""
    mapping = mapping.to(device).eval()
    with torch.no_grad(), arithmetic(torch.device(device), p.half):
        found: torch.Tensor = mapping(site, torch.from_numpy(codes.astype(np.float32)).to(device))
    return found.half().cpu().contiguous().numpy()


def _restored(
    p: PrivacySFParameters, task: SegmentationTask, state: Mapping[str, np.ndarray], facts: Mapping[str, str]
) -> SiteMapping:
    mapping = untrained(p, task, tuple(facts["sites"].split()), 0)
    mapping.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    return mapping.eval()


def untrained(p: PrivacySFParameters, task: SegmentationTask, sites: tuple[str, ...], seed: int) -> SiteMapping:
    """The network before it is trained, with adapters for `sites` where the parameters ask for them."""
    least = Grid(16, 16, 1.0)  # shapes of codes grow with the grid, their channels do not
    with building(seed, "server", "mapping"):
        return build_mapping(
            sites,
            p.image_code(Scope(least, task))[0],
            p.mask_code(least)[0],
            backbone=p.trunk,
            width=p.trunk_width,
            levels=p.trunk_levels,
            skips=p.trunk_skips,
            adapters=p.own_ends,
        )
