"""The images of a simulation's report: of each simulated site the best, the median and the worst test volume, and one code.

A deployed site shows no image to anybody. A simulation whose scenario allows it (``report.images``) takes them from what its
sites kept and measured, once the run is done, and keeps them in each site's vault, where a withdrawal finds them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fedprivseg.core.config import Scenario
from fedprivseg.core.records import Payload, Subject
from fedprivseg.core.runfolder import RunFolder
from fedprivseg.governance.sitefolder.configuration import SiteConfiguration
from fedprivseg.governance.sitefolder.vault import PICTURES, prediction_name
from fedprivseg.imaging.nifti import opened, read_geometry
from fedprivseg.methods.method import CodedMethod
from fedprivseg.methods.release_order import kept_order
from fedprivseg.runtime.server.store import Store
from fedprivseg.runtime.site.site_context import SiteContext
from fedprivseg.runtime.site.site_runtime import SiteRuntime


def keep_images(run: RunFolder, scenario: Scenario) -> None:
    """Keep the images for the report at every site that measured."""
    if not scenario.report.images:
        return
    for each in scenario.sites:
        metrics = run.server.metrics(each.name)
        site = SiteContext(SiteConfiguration.read(run.site(each.name).configuration), scenario)
        if metrics.exists() and site.cohort.test:
            site.vault.save(
                PICTURES, _images(site, Store(run.server.codes), Payload.decode(metrics.read_bytes()).arrays)
            )


def _images(site: SiteContext, store: Store, measured: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Three test volumes at the slice with most of what is sought, by the Dice that the site measured, and for the first of
    them the slice on the network grid beside its code as the server has it."""
    values, known = measured["dice"], measured["dice_known"] > 0
    cases = [
        (float(values[row, column][known[row, column]].mean()) if known[row, column].any() else 0.0, row, column)
        for row, subject in enumerate(site.cohort.test)
        for column in range(len(set(subject.frames.values())))
    ]
    ranked = sorted(cases, key=lambda case: case[0])
    arrays: dict[str, np.ndarray] = {}
    for name, place in (("best", -1), ("median", len(ranked) // 2), ("worst", 0)):
        score, row, column = ranked[place]
        subject, time = site.cohort.test[row], site.scenario.task.times[column]
        volume = site.volumes(subject)[time]
        assert volume.mask is not None  # test subjects are labelled
        level = int((volume.mask > 0).sum(axis=(0, 1)).argmax())
        arrays[f"{name}.image"] = volume.image[:, :, level]
        arrays[f"{name}.truth"] = volume.mask[:, :, level]
        arrays[f"{name}.prediction"] = _prediction(site, row, subject, time)[:, :, level]
        arrays[f"{name}.dice"] = np.array([score])
        arrays[f"{name}.spacing"] = np.array(volume.spacing)
        if name == "best":
            arrays |= _code(site, store, row, column * volume.image.shape[2] + level)
    return arrays


def _code(site: SiteContext, store: Store, row: int, place: int) -> dict[str, np.ndarray]:
    """The slice at `place` of the test subject `row`, and its code; nothing if the method sends no codes of test images."""
    sends = site.method.sends if isinstance(site.method, CodedMethod) else ()
    for sent in (each for each in sends if each.what == "images" and each.side == "test"):
        runtime = SiteRuntime(site)
        slices = runtime.slices("test")
        index = int(np.flatnonzero(slices.subjects == row)[place])
        rows = np.flatnonzero(kept_order(site.vault, sent, 0, len(slices.images)) == index)  # codes come view by view
        code = store.table(site.name, sent.action, "codes").rows(rows)[0]
        return {"code.slice": slices.images[index], "code.code": code.astype(np.float32)}
    return {}


def _prediction(site: SiteContext, row: int, subject: Subject, time: str) -> np.ndarray:
    """The mask (X, Y, Z) that the site drew of a test subject."""
    if site.vault.sealed:
        return read_geometry(subject.image, site.dataset.limits).slices_last(
            site.vault.load(prediction_name(row, time))["mask"]
        )
    path = site.folder.predictions / f"{subject.code}_{time}.nii.gz"
    with opened(path, site.dataset.limits) as file:
        return file.frame(0).astype(np.uint8)
