"""What stands in the headers of a site's images stays there: nothing that the site writes or sends has a byte of it."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from conftest import BRIEF, ROOT, tiny_settings
from nibabel.nifti1 import Nifti1Extension

from fedprivseg.core.task import default_task
from fedprivseg.imaging.mnms.release import HEADER_FIELDS, MnMs
from fedprivseg.imaging.scrub import findings
from fedprivseg.study.predict import predict_image
from fedprivseg.study.run import load_scenario, simulate

MARK = b"ZHANGWEIMING4711"


def plant(path: Path) -> None:
    """Put the mark wherever text can stand in the file, and other values into every field that is not on the list."""
    image = nib.Nifti1Image.from_filename(path)
    voxels, header = image.dataobj.get_unscaled(), image.header.copy()
    draws = np.random.default_rng(4711)
    for name in header.keys():  # noqa: SIM118  (no mapping)
        if name in HEADER_FIELDS:
            continue
        field = header[name]
        if field.dtype.kind == "S":
            header[name] = MARK[: field.dtype.itemsize]
        else:
            header[name] = draws.integers(1, 9, field.shape).astype(field.dtype)
    header.extensions.append(Nifti1Extension("comment", MARK))
    header.extensions.append(Nifti1Extension("dicom", MARK * 3))
    header.set_data_offset(352 + 16 * 16)
    made = bytearray(nib.Nifti1Image(voxels, None, header).to_bytes())
    # Saving resets scaling and, without an affine, nothing else: the listed fields come from the original byte by byte.
    raw = gzip.decompress(path.read_bytes())
    for name in HEADER_FIELDS:
        if name != "vox_offset":
            kind, start = header.template_dtype.fields[name]
            made[start : start + kind.itemsize] = raw[start : start + kind.itemsize]
    with path.open("wb") as file, gzip.GzipFile(MARK.decode(), "wb", fileobj=file) as packed:
        packed.write(made + MARK)


def bodies(folder: Path) -> dict[str, bytes]:
    """Every file below `folder` with what is in it; gzip files as they are and unpacked."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            body = path.read_bytes()
            found[str(path.relative_to(folder))] = body
            if body[:2] == b"\x1f\x8b":
                found[f"{path.relative_to(folder)} unpacked"] = gzip.decompress(body)
    return found


@pytest.fixture(scope="module")
def planted(phantom, tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted") / "release"
    shutil.copytree(phantom, folder)
    for path in folder.rglob("*.nii.gz"):
        plant(path)
    return folder


@pytest.fixture(scope="module")
def run(planted, tmp_path_factory):
    """A run on the planted release at sites whose disks are open, with the caches beside it."""
    base = tmp_path_factory.mktemp("headers")
    patch = pytest.MonkeyPatch()
    patch.setenv("FEDPRIVSEG_CACHE", str(base / "cache"))
    scenario = load_scenario(ROOT / "simulations/policy-open.toml", [*tiny_settings(planted), *BRIEF])
    simulate(scenario, base / "run")
    patch.undo()
    return base


def test_what_is_searched_for_is_really_there(planted):
    files = bodies(planted)
    unpacked = [body for name, body in files.items() if name.endswith("unpacked")]
    assert len(unpacked) >= 18
    assert all(body.count(MARK) >= 6 for body in unpacked)
    assert all(findings(nib.load(path)) for path in planted.rglob("*.nii.gz"))


def test_nothing_that_is_read_follows_from_a_field_that_is_not_listed(phantom, planted):
    assert not MnMs().check(planted).faults
    for before, after in zip(MnMs().read(phantom).subjects, MnMs().read(planted).subjects, strict=True):
        for (phase, one), (other_phase, other) in zip(
            MnMs().load(before, default_task()).items(), MnMs().load(after, default_task()).items(), strict=True
        ):
            assert phase == other_phase
            assert np.array_equal(one.image, other.image)
            assert np.array_equal(one.affine, other.affine)
            assert (one.mask is None and other.mask is None) or np.array_equal(one.mask, other.mask)


def test_no_byte_of_a_header_is_in_anything_that_sites_and_server_wrote(run):
    files = bodies(run)
    names = "\n".join(files)
    # The search covers vaults, predictions, ledgers, payloads at the server, results and caches.
    for part in ("predictions/", "ledger.jsonl", "server/codes/", "vault/", "result.json", "cache/"):
        assert part in names, part
    assert [name for name, body in files.items() if MARK in body or MARK[:10] in body] == []


def test_predictions_have_headers_without_text(run, planted, tmp_path):
    predict_image(run / "run", next(planted.rglob("*_sa.nii.gz")), "centre1", tmp_path / "mask.nii.gz")
    written = [*(run / "run").rglob("predictions/*.nii.gz"), tmp_path / "mask.nii.gz"]
    assert len(written) > 3
    for path in written:
        image = nib.load(path)
        assert findings(image) == ()
        plain = nib.Nifti1Image(np.asarray(image.dataobj), image.affine).header
        for name in set(plain.keys()) - {*HEADER_FIELDS, "xyzt_units"}:
            assert image.header[name].tobytes() == plain[name].tobytes(), name
        assert MARK not in gzip.decompress(path.read_bytes())
