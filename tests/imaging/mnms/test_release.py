"""The M&Ms release: every kind of fault is found and leaves out its own subject only; frames come back as written."""

from __future__ import annotations

import csv
import gzip
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fedprivseg.core.errors import DataError
from fedprivseg.core.task import default_task
from fedprivseg.imaging.cohort import summarise
from fedprivseg.imaging.mnms.release import FAULTS, WARNINGS, MnMs
from fedprivseg.imaging.mnms.table import TABLE

REAL = Path(
    os.environ.get("FEDPRIVSEG_DATA") or Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
)  # not part of the checkout
COLUMNS = ["", "External code", "VendorName", "Vendor", "Centre", "ED", "ES", "Age", "Pathology", "Sex"]
SHAPE = (40, 36, 4, 5)  # 11.5 kB a frame as int16: more than one read-ahead of a gzip stream
AFFINE = np.array([[0, 1.25, 0, -80], [-1.5, 0, 0, 60.5], [0, 0, 9.6, 12], [0, 0, 0, 1]])
ED, ES = 1, 3
PLACES = {
    "A1B2": ("Training/Labeled", 1, ES),
    "C3": ("Validation", 2, ES),
    "D4E5F6": ("Testing", 3, ES),
    "U7": ("Training/Unlabeled", 1, ED),  # ED == ES marks it as unlabelled
}
BROKEN = "C3"


def frames(code: str) -> np.ndarray:
    """(X, Y, Z, T) int16: noise that gzip cannot shrink, another for each frame."""
    return np.random.default_rng(sum(code.encode())).integers(0, 2000, SHAPE, dtype=np.int16)


def labels(es: int = ES) -> np.ndarray:
    mask = np.zeros(SHAPE, dtype=np.uint8)
    if es != ED:
        mask[10:30, 10:30, 1:3, ED], mask[12:20, 12:20, 1:3, ED], mask[25:30, 10:30, 1:3, ED] = 2, 1, 3
        mask[12:28, 12:28, 1:3, ES], mask[14:18, 14:18, 1:3, ES], mask[24:28, 12:28, 1:3, ES] = 2, 1, 3
    return mask


def save(path: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(voxels, affine).to_filename(path)


def image_of(root: Path, code: str = BROKEN) -> Path:
    return root / PLACES[code][0] / code / f"{code}_sa.nii.gz"


def mask_of(root: Path, code: str = BROKEN) -> Path:
    return root / PLACES[code][0] / code / f"{code}_sa_gt.nii.gz"


def write_table(root: Path, rows: list[list[object]], name: str = TABLE) -> None:
    with (root / name).open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([COLUMNS, *rows])


def usual_rows() -> list[list[object]]:
    return [
        [index, code, "Siemens", "A", centre, ED, es, 61, "NOR", "F"]
        for index, (code, (_, centre, es)) in enumerate(PLACES.items())
    ]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A sound release of four subjects."""
    release = tmp_path / "release"
    for code, (_, _, es) in PLACES.items():
        save(image_of(release, code), frames(code))
        save(mask_of(release, code), labels(es))
    write_table(release, usual_rows())
    return release


def test_a_sound_release(root: Path) -> None:
    for release, seen in ((MnMs().read(root), None), (MnMs().check(root), (0, 1, 2, 3))):
        assert release.faults == ()
        assert [subject.code for subject in release.subjects] == ["A1B2", "C3", "D4E5F6", "U7"]
        first, last = release.subjects[0], release.subjects[3]
        assert (first.centre, first.split, first.labelled, first.frames) == (1, "train", True, {"ED": ED, "ES": ES})
        assert first.attributes == {"disease": "NOR", "sex": "F", "vendor": "Siemens"}
        assert (last.split, last.labelled, last.mask) == ("train", False, None)
        assert [subject.split for subject in release.subjects[1:3]] == ["val", "test"]
        assert release.scans["C3"].shape == SHAPE
        assert release.scans["C3"].spacing == pytest.approx((1.5, 1.25, 9.6))
        assert release.scans["C3"].labels == seen
        assert release.scans["U7"].labels is None


def test_phases_are_the_frames_that_the_table_names(root: Path) -> None:
    subject = MnMs().read(root).subjects[0]
    volumes = MnMs().load(subject, default_task())
    assert list(volumes) == ["ED", "ES"]
    for phase, frame in (("ED", ED), ("ES", ES)):
        assert volumes[phase].image.dtype == np.float32
        assert volumes[phase].mask.dtype == np.uint8
        np.testing.assert_array_equal(volumes[phase].image, frames("A1B2")[..., frame])
        np.testing.assert_array_equal(volumes[phase].mask, labels()[..., frame])
        np.testing.assert_allclose(volumes[phase].affine, AFFINE)
        assert volumes[phase].spacing == pytest.approx((1.5, 1.25, 9.6))


def test_es_before_ed(root: Path) -> None:
    rows = usual_rows()
    rows[0][5], rows[0][6] = ES, ED
    write_table(root, rows)
    volumes = MnMs().load(MnMs().read(root).subjects[0], default_task())
    np.testing.assert_array_equal(volumes["ED"].image, frames("A1B2")[..., ES])
    np.testing.assert_array_equal(volumes["ES"].image, frames("A1B2")[..., ED])


def test_an_unlabelled_subject_has_one_frame_and_no_mask(root: Path) -> None:
    volumes = MnMs().load(MnMs().read(root).subjects[3], default_task())
    assert list(volumes) == ["ED"]
    assert volumes["ED"].mask is None


def test_scaling_in_the_header_is_applied(root: Path) -> None:
    stored = nib.Nifti1Image(frames(BROKEN), AFFINE)
    body = bytearray(stored.to_bytes())
    body[112:120] = np.array([0.5, -3.0], dtype="<f4").tobytes()  # scl_slope and scl_inter, NIfTI-1 bytes 112 to 119
    image_of(root).write_bytes(gzip.compress(bytes(body)))
    volume = MnMs().load(MnMs().read(root).subjects[1], default_task())["ES"]
    np.testing.assert_allclose(volume.image, frames(BROKEN)[..., ES] * 0.5 - 3.0)


def test_float_masks_with_whole_values_are_masks(root: Path) -> None:
    save(mask_of(root), labels().astype(np.float32))
    assert MnMs().check(root).faults == ()


@pytest.mark.parametrize("order", [(2, 0, 1), (0, 2, 1), (2, 1, 0)])
def test_slices_are_found_wherever_they_stand_in_the_file(order: tuple[int, ...], root: Path) -> None:
    """Also where the mask has them last and the image has not."""
    turned = order == (2, 1, 0)  # the other two axes keep their order, here Y before X
    shape = (36, 40, 4, 5) if turned else SHAPE
    save(image_of(root), frames(BROKEN).transpose(*order, 3), AFFINE[:, [*order, 3]])
    if turned:
        save(mask_of(root), labels().transpose(*order, 3), AFFINE[:, [*order, 3]])
    release = MnMs().check(root)
    assert release.faults == ()
    assert release.scans[BROKEN].shape == shape
    assert release.scans[BROKEN].spacing == pytest.approx((1.25, 1.5, 9.6) if turned else (1.5, 1.25, 9.6))
    volume = MnMs().load(release.subjects[1], default_task())["ES"]
    for read, written in ((volume.image, frames(BROKEN)), (volume.mask, labels())):
        np.testing.assert_array_equal(read.swapaxes(0, 1) if turned else read, written[..., ES])


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1000), ("micron", 0.001)])
def test_other_units_are_converted(unit: str, factor: float, root: Path) -> None:
    stored = nib.Nifti1Image(frames(BROKEN), np.diag([1 / factor] * 3 + [1]) @ AFFINE)
    stored.header.set_xyzt_units(unit)
    stored.to_filename(image_of(root))
    release = MnMs().check(root)
    assert release.faults == ()
    assert release.scans[BROKEN].spacing == pytest.approx((1.5, 1.25, 9.6))
    np.testing.assert_allclose(MnMs().load(release.subjects[1], default_task())["ED"].affine, AFFINE, atol=1e-4)


def test_nifti_2_is_read(root: Path) -> None:
    nib.Nifti2Image(frames(BROKEN), AFFINE).to_filename(image_of(root))
    release = MnMs().check(root)
    assert release.faults == ()
    np.testing.assert_array_equal(MnMs().load(release.subjects[1], default_task())["ES"].image, frames(BROKEN)[..., ES])


def test_an_image_without_a_place_has_masks_of_its_sizes(root: Path) -> None:
    """Both codes 0: the mask, whose header has a transform, cannot lie elsewhere, but can be of another size."""
    swap_header(image_of(root), 254, b"\0\0")  # sform_code
    release = MnMs().check(root)
    assert release.faults == ()
    assert release.scans[BROKEN].spacing == pytest.approx((1.5, 1.25, 9.6))
    save(mask_of(root), labels(), AFFINE @ np.diag([1, 1.02, 1, 1]))
    assert [fault.code for fault in MnMs().check(root).faults] == ["affine-mismatch"]


def test_nothing_after_the_last_wanted_frame_is_needed(root: Path) -> None:
    body = image_of(root).read_bytes()
    image_of(root).write_bytes(body[:-100])  # frame 4 of 0 to 4 is cut short; ES is frame 3
    volume = MnMs().load(MnMs().read(root).subjects[1], default_task())["ES"]
    np.testing.assert_array_equal(volume.image, frames(BROKEN)[..., ES])
    assert [fault.code for fault in MnMs().check(root).faults] == ["unreadable"]


# --- faults ----------------------------------------------------------------------------------------------------------


def change_row(root: Path, column: str, value: object) -> None:
    rows = usual_rows()
    rows[1][COLUMNS.index(column)] = value
    write_table(root, rows)


def poke(root: Path, where: Callable[[Path], Path], voxels: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    save(where(root), voxels, affine)


def with_value(voxels: np.ndarray, value: float, frame: int = ES) -> np.ndarray:
    changed = voxels.astype(np.float32)
    changed[5, 5, 2, frame] = value
    return changed


def without(frame: int) -> np.ndarray:
    mask = labels()
    mask[..., frame] = 0
    return mask


def blank(frame: int, level: int | slice = slice(None)) -> np.ndarray:
    image = frames(BROKEN)
    image[:, :, level, frame] = 0
    return image


def long_row(root: Path) -> None:
    """A name of a vendor with a bare comma moves Centre, ED and ES by one."""
    rows = usual_rows()
    rows[1].insert(2, "Philips")
    write_table(root, rows)


def shifted(column: int, by: float) -> np.ndarray:
    affine = AFFINE.copy()
    affine[column, 3] += by
    return affine


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def swap_header(path: Path, start: int, body: bytes) -> None:
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[start : start + len(body)] = body
    path.write_bytes(gzip.compress(bytes(content)))


def shorten_inside(path: Path) -> None:
    """A sound gzip file around a NIfTI file that lacks its last bytes."""
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-10]))


def flip(path: Path) -> None:
    body = bytearray(path.read_bytes())
    body[-5] ^= 0xFF  # gzip's length field
    path.write_bytes(bytes(body))


def link_out(path: Path, root: Path) -> None:
    outside = root.parent / "elsewhere" / path.name
    outside.parent.mkdir(exist_ok=True)
    shutil.move(path, outside)
    path.symlink_to(outside)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def copy_folder(root: Path) -> None:
    shutil.copytree(root / "Validation" / BROKEN, root / "Testing" / BROKEN)


FLAT = np.column_stack([AFFINE[:, 0], AFFINE[:, 1], 3 * AFFINE[:, 0], AFFINE[:, 3]])  # Z runs along X
UNIT_SFORM = np.eye(4, dtype="<f4")[:3].tobytes()
ONES = np.ones(3, "<f4").tobytes()
HEADER_FAULTS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "no folder": ("missing-file", lambda root: shutil.rmtree(root / "Validation" / BROKEN)),
    "no image": ("missing-file", lambda root: image_of(root).unlink()),
    "no mask": ("missing-file", lambda root: mask_of(root).unlink()),
    "a pipe": ("missing-file", lambda root: pipe(image_of(root))),
    "mask shape": ("shape-mismatch", lambda root: poke(root, mask_of, labels()[:-1])),
    "mask shifted": ("affine-mismatch", lambda root: poke(root, mask_of, labels(), shifted(1, 1.25))),
    "mask turned": ("affine-mismatch", lambda root: poke(root, mask_of, labels(), AFFINE @ np.diag([-1, 1, 1, 1]))),
    "image 3-D": ("wrong-dimensions", lambda root: poke(root, image_of, frames(BROKEN)[..., 0])),
    "mask 3-D": ("wrong-dimensions", lambda root: poke(root, mask_of, labels()[..., 0])),
    "image 5-D": ("wrong-dimensions", lambda root: poke(root, image_of, frames(BROKEN)[..., None])),
    "flat axes": ("bad-geometry", lambda root: poke(root, image_of, frames(BROKEN), FLAT)),
    "metres": ("implausible-geometry", lambda root: poke(root, image_of, frames(BROKEN), AFFINE / 1000)),
    "centimetres": ("implausible-geometry", lambda root: poke(root, image_of, frames(BROKEN), AFFINE / 10)),
    "unit sform": ("contradicting-header", lambda root: swap_header(image_of(root), 280, UNIT_SFORM)),  # srow_x
    "unit sform of the mask": ("contradicting-header", lambda root: swap_header(mask_of(root), 280, UNIT_SFORM)),
    "no transform, no sizes": (
        "invented-sizes",
        lambda root: (
            swap_header(image_of(root), 254, b"\0\0"),
            swap_header(image_of(root), 80, ONES),
        ),  # sform_code, pixdim
    ),
    "an unknown unit": ("bad-units", lambda root: swap_header(image_of(root), 123, b"\5")),  # xyzt_units
    "cubes": ("slice-axis", lambda root: poke(root, image_of, frames(BROKEN), np.diag([3, 3, 3, 1]))),
    "NaN affine": ("bad-geometry", lambda root: swap_header(image_of(root), 280, b"\x00\x00\xc0\x7f")),  # srow_x
    "huge matrix": ("bad-geometry", lambda root: swap_header(image_of(root), 42, b"\xff\x7f\xff\x7f")),  # dim[1:3]
    "complex": ("unreadable", lambda root: poke(root, image_of, frames(BROKEN).astype(np.complex64))),
    "no gzip": ("unreadable", lambda root: image_of(root).write_bytes(b"not a scan")),
    "no NIfTI": ("unreadable", lambda root: image_of(root).write_bytes(gzip.compress(b"not a scan" * 100))),
    "empty file": ("unreadable", lambda root: cut(mask_of(root), 0)),
    "cut in the header": ("unreadable", lambda root: cut(image_of(root), 40)),
    "ES too late": ("frame-range", lambda root: change_row(root, "ES", SHAPE[3])),
    "ED negative": ("frame-range", lambda root: change_row(root, "ED", -1)),
    "code twice": ("duplicate-code", lambda root: write_table(root, [*usual_rows(), usual_rows()[1]])),
    "two folders": ("two-folders", copy_folder),
    "a cell too many": ("bad-row", long_row),
    "ED a word": ("bad-number", lambda root: change_row(root, "ED", "one")),
    "ES empty": ("bad-number", lambda root: change_row(root, "ES", "")),
    "ES a fraction": ("bad-number", lambda root: change_row(root, "ES", "3.5")),
    "ES infinite": ("bad-number", lambda root: change_row(root, "ES", "inf")),
    "Centre NaN": ("bad-number", lambda root: change_row(root, "Centre", "nan")),
    "Centre 0": ("bad-number", lambda root: change_row(root, "Centre", 0)),
    "file links out": ("outside-release", lambda root: link_out(image_of(root), root)),
    "mask links out": ("outside-release", lambda root: link_out(mask_of(root), root)),
    "folder links out": ("outside-release", lambda root: link_out(root / "Validation" / BROKEN, root)),
}
FRAME_FAULTS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "image cut": ("unreadable", lambda root: cut(image_of(root), 9000)),
    "mask cut": ("unreadable", lambda root: cut(mask_of(root), mask_of(root).stat().st_size - 60)),
    "checksum cut": ("unreadable", lambda root: cut(image_of(root), image_of(root).stat().st_size - 4)),
    "checksum wrong": ("unreadable", lambda root: flip(image_of(root))),
    "voxels missing": ("unreadable", lambda root: shorten_inside(image_of(root))),
    "zeros at ES": ("no-signal", lambda root: poke(root, image_of, blank(ES))),
    "a blank slice": ("no-signal", lambda root: poke(root, image_of, blank(ED, 2))),
    "NaN": ("not-finite", lambda root: poke(root, image_of, with_value(frames(BROKEN), np.nan))),
    "infinite": ("not-finite", lambda root: poke(root, image_of, with_value(frames(BROKEN), -np.inf, ED))),
    "label 4": ("bad-labels", lambda root: poke(root, mask_of, with_value(labels(), 4).astype(np.uint8))),
    "label -1": ("bad-labels", lambda root: poke(root, mask_of, with_value(labels(), -1).astype(np.int16))),
    "label 1.5": ("bad-labels", lambda root: poke(root, mask_of, with_value(labels(), 1.5))),
    "label NaN": ("bad-labels", lambda root: poke(root, mask_of, with_value(labels(), np.nan))),
    "no label at ED": ("empty-mask", lambda root: poke(root, mask_of, without(ED))),
    "no label at ES": ("empty-mask", lambda root: poke(root, mask_of, without(ES))),
}


@pytest.mark.parametrize("name", HEADER_FAULTS)
def test_read_release_finds(name: str, root: Path) -> None:
    expected, spoil = HEADER_FAULTS[name]
    spoil(root)
    release = MnMs().read(root)
    assert [fault.code for fault in release.faults] == [expected]
    assert [subject.code for subject in release.subjects] == ["A1B2", "D4E5F6", "U7"]
    assert set(release.scans) == {"A1B2", "D4E5F6", "U7"}
    assert BROKEN in release.faults[0].file + release.faults[0].what
    assert not Path(release.faults[0].file).is_absolute()
    assert MnMs().check(root).faults == release.faults


@pytest.mark.parametrize("name", FRAME_FAULTS)
def test_check_release_finds(name: str, root: Path) -> None:
    expected, spoil = FRAME_FAULTS[name]
    spoil(root)
    assert MnMs().read(root).faults == ()
    calls: list[tuple[int, int]] = []
    release = MnMs().check(root, progress=lambda done, total: calls.append((done, total)))
    assert [fault.code for fault in release.faults] == [expected]
    assert release.faults[0].file.startswith(f"Validation/{BROKEN}/{BROKEN}_sa")
    assert [subject.code for subject in release.subjects] == ["A1B2", "D4E5F6", "U7"]
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize("name", ["image cut", "NaN", "label 4", "no label at ES"])
def test_load_phases_refuses_and_names_no_patient(name: str, root: Path) -> None:
    expected, spoil = FRAME_FAULTS[name]
    spoil(root)
    with pytest.raises(DataError, match=expected) as caught:
        MnMs().load(MnMs().read(root).subjects[1], default_task())
    assert BROKEN not in str(caught.value)
    assert str(root) not in str(caught.value)


@pytest.mark.parametrize(
    "code",
    ["../secret", "a/b", "/etc/passwd", "..", ".", "", "a\\b", "x" * 33, "C3 C3", "C\x1b[2J", "\u0421\u0033", "C3\x00"],
)
def test_a_code_that_is_no_code(code: str, root: Path) -> None:
    """The Cyrillic letter Es looks like a Latin C. NUL cannot be written to a table by csv, so it goes in by hand."""
    row = f"9,{code},Siemens,A,1,{ED},{ES},,,\n"
    with (root / TABLE).open("a", encoding="utf-8") as stream:
        stream.write(row)
    save(root.parent / "secret" / "secret_sa.nii.gz", frames("s"))
    release = MnMs().read(root)
    assert [fault.code for fault in release.faults] == ["unsafe-code"]
    assert release.faults[0].what.isprintable()
    assert len(release.subjects) == 4


def test_a_folder_that_the_table_does_not_list(root: Path) -> None:
    shutil.copytree(root / "Testing" / "D4E5F6", root / "Testing" / "STRAY\x1b[2J")
    release = MnMs().read(root)
    assert [fault.code for fault in release.faults] == ["unlisted-folder"]
    assert release.faults[0].file.isprintable()
    assert len(release.subjects) == 4


def test_a_link_that_stays_inside_is_followed(root: Path) -> None:
    target = root / "annex" / "blob"
    target.parent.mkdir()
    shutil.move(image_of(root), target)
    image_of(root).symlink_to(target)
    assert MnMs().check(root).faults == ()


def test_many_faults_at_once_all_show(root: Path) -> None:
    poke(root, lambda base: mask_of(base, "A1B2"), without(ED))
    image_of(root, "D4E5F6").unlink()
    change_row(root, "ED", "x")
    release = MnMs().check(root)
    assert {fault.code for fault in release.faults} == {"empty-mask", "missing-file", "bad-number"}
    assert [subject.code for subject in release.subjects] == ["U7"]


def test_every_fault_code_is_tested() -> None:
    tested = {code for code, _ in (HEADER_FAULTS | FRAME_FAULTS).values()} | {"unsafe-code", "unlisted-folder"}
    tested |= {"same-scan"}
    assert tested == set(FAULTS)


# --- one scan under two codes -----------------------------------------------------------------------------------------


def copied(root: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """The image of D4E5F6, a test subject, under the code of A1B2, a training subject."""
    save(image_of(root, "A1B2"), change(frames("D4E5F6")))


@pytest.mark.parametrize(
    "change",
    [lambda voxels: voxels, lambda voxels: voxels.astype(np.float32)],
    ids=["as it was", "stored as floats"],
)
def test_one_scan_under_two_codes(root: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Both are left out, in a run too: nothing tells which code is right."""
    copied(root, change)
    for release in (MnMs().read(root), MnMs().check(root)):
        assert [fault.code for fault in release.faults] == ["same-scan"]
        assert release.faults[0].what.startswith("A1B2 (train) and D4E5F6 (test) have the same voxels")
        assert [subject.code for subject in release.subjects] == ["C3", "U7"]
        assert set(release.scans) == {"C3", "U7"}


def test_a_scan_that_shares_one_frame_is_found_by_the_deep_check(root: Path) -> None:
    """Its frame at ED is another's frame at ES: no first slice tells it."""
    copied(root, lambda voxels: voxels[..., [0, ES, 2, 4, ED]])
    assert MnMs().read(root).faults == ()
    assert [fault.code for fault in MnMs().check(root).faults] == ["same-scan"]


def test_equal_first_slices_make_no_copies(root: Path) -> None:
    """As where both stacks begin alike: candidates, whose whole frames differ."""
    voxels = frames("A1B2")
    voxels[:, :, 0] = frames("D4E5F6")[:, :, 0]
    save(image_of(root, "A1B2"), voxels)
    assert MnMs().read(root).faults == MnMs().check(root).faults == ()


# --- warnings --------------------------------------------------------------------------------------------------------


def acdc(root: Path) -> None:
    save(mask_of(root), np.array([0, 3, 2, 1], np.uint8)[labels()])


def exchanged(root: Path) -> None:
    rows = usual_rows()
    rows[1][COLUMNS.index("ED")], rows[1][COLUMNS.index("ES")] = ES, ED
    write_table(root, rows)


def one_frame_twice(root: Path) -> None:
    voxels = frames(BROKEN)
    voxels[..., ES] = voxels[..., ED]
    save(image_of(root), voxels)


def without_structure(root: Path) -> None:
    mask = labels()
    mask[mask == 3] = 0
    save(mask_of(root), mask)


def open_ring(root: Path) -> None:
    mask = labels()
    mask[:16][mask[:16] == 2] = 0
    save(mask_of(root), mask)


def western(root: Path) -> None:
    change_row(root, "VendorName", "Müller")
    text = (root / TABLE).read_text(encoding="utf-8")
    (root / TABLE).write_bytes(text.encode("cp1252"))


def companions(root: Path) -> None:
    """In each kind of place: beside the table, a subject's folder, an image."""
    for place in (root / f"._{TABLE}", root / f"Testing/._{BROKEN}", image_of(root).with_name(f"._{BROKEN}_sa.nii.gz")):
        place.write_bytes(b"\x00\x05\x16\x07" + bytes(100))


HEADER_WARNINGS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a Western table": ("table-encoding", western),
    "companion files": ("companion-files", companions),
}
FRAME_WARNINGS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "labels of ACDC": ("label-order", acdc),
    "half a ring": ("open-myocardium", open_ring),
    "no RV": ("missing-structure", without_structure),
    "ED and ES exchanged": ("phase-order", exchanged),
    "one frame twice": ("same-frame", one_frame_twice),
}


@pytest.mark.parametrize("name", HEADER_WARNINGS | FRAME_WARNINGS)
def test_a_warning_names_file_and_subject_and_leaves_out_nobody(name: str, root: Path) -> None:
    code, spoil = (HEADER_WARNINGS | FRAME_WARNINGS)[name]
    spoil(root)
    quick, deep = MnMs().read(root), MnMs().check(root)
    assert {each.code for each in deep.warnings} == {code}
    assert {each.code for each in quick.warnings} == ({code} if name in HEADER_WARNINGS else set())
    assert len(deep.subjects) == 4
    assert deep.faults == ()
    for each in deep.warnings:
        assert not Path(each.file).is_absolute()
        assert name in HEADER_WARNINGS or BROKEN in each.file
    assert MnMs().doubts(root, deep.subjects) == tuple(
        each for each in deep.warnings if name in FRAME_WARNINGS and each.code != "same-frame"
    )


def test_nothing_outside_the_release_is_listed(root: Path) -> None:
    outside = root.parent / "elsewhere"
    outside.mkdir()
    (outside / "._secret").write_bytes(b"\x00\x05\x16\x07")
    (root / "Testing" / "Z9").symlink_to(outside)
    assert MnMs().read(root).warnings == ()


def test_every_warning_is_tested() -> None:
    assert {code for code, _ in (HEADER_WARNINGS | FRAME_WARNINGS).values()} == set(WARNINGS)


def test_a_mask_with_a_fault_has_no_warning(root: Path) -> None:
    subjects = MnMs().read(root).subjects
    poke(root, mask_of, without(ED))
    assert MnMs().doubts(root, subjects) == ()


# --- the folder and the table ----------------------------------------------------------------------------------------


def test_the_outer_folder_and_other_table_names(root: Path) -> None:
    inner = root.parent / "download" / "OpenDataset"
    inner.parent.mkdir()
    shutil.move(root, inner)
    (inner / TABLE).rename(inner / "information.csv")
    (inner / "notes.csv").write_text("a,b\n1,2\n")
    (inner / "._information.csv").write_bytes(b"\x00\x05\x16\x07\xff\xfe")
    assert len(MnMs().read(inner.parent).subjects) == 4
    assert len(MnMs().read(inner).subjects) == 4
    (inner / "information.csv").rename(inner.parent / "information.csv")
    assert len(MnMs().read(inner.parent).subjects) == 4


def test_a_table_saved_by_a_spreadsheet(root: Path) -> None:
    """Byte order mark, whole numbers as floats, blanks around cells, CRLF, rows without their empty tail."""
    lines = [",".join(f" {name} " for name in COLUMNS)]
    lines += [f"{row[0]},{row[1]} , Siemens,A,{row[4]}.0,{row[5]}.0,{row[6]}.0" for row in usual_rows()]
    (root / TABLE).write_text("\r\n".join([*lines, "", ",,,,,,", ""]), encoding="utf-8-sig", newline="")
    release = MnMs().read(root)
    assert release.faults == ()
    assert len(release.subjects) == 4
    assert release.subjects[0].attributes["sex"] == ""


def no_splits(root: Path) -> None:
    for name in ("Training", "Validation", "Testing"):
        shutil.rmtree(root / name)


def empty(root: Path) -> None:
    no_splits(root)
    (root / "Testing").mkdir()
    write_table(root, [])


def columns_twice(root: Path) -> None:
    lines = (root / TABLE).read_text(encoding="utf-8").splitlines()
    (root / TABLE).write_text("\n".join([f"{lines[0]},ED,ES", *(f"{line},{ES},{ED}" for line in lines[1:])]))


NO_RELEASE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "absent": ("does not exist", lambda root: shutil.rmtree(root)),
    "no table": ("there is no file whose name ends in .csv, .tsv, .txt", lambda root: (root / TABLE).unlink()),
    "two tables": ("2 tables", lambda root: [shutil.copy(root / TABLE, root / n) for n in ("a.csv", "b.csv")]
    and (root / TABLE).unlink()),
    "other columns": (
        "lacks the columns VendorName, ED, ES",
        lambda root: (root / TABLE).write_text("External code,Centre\nC3,1\n"),
    ),
    "binary table": ("lacks the columns", lambda root: (root / TABLE).write_bytes(b"\xff\xfe\x00\x01")),
    "columns twice": ("more than one column ED and ES", columns_twice),
    "a link out": ("a link that leads out of the release", lambda root: link_out(root / TABLE, root)),
    "no folders": ("none of the split folders", no_splits),
    "nobody": ("empty", empty),
}  # fmt: skip


@pytest.mark.parametrize("name", NO_RELEASE)
def test_no_release(name: str, root: Path) -> None:
    expected, spoil = NO_RELEASE[name]
    spoil(root)
    with pytest.raises(DataError, match=expected) as caught:
        MnMs().read(root)
    assert "Training/Labeled" in str(caught.value)
    assert TABLE in str(caught.value)


def test_an_empty_folder_and_a_file_are_no_release(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none of the split folders"):
        MnMs().read(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="no folder"):
        MnMs().read(tmp_path / "file")


def test_the_cohort_table(root: Path) -> None:
    save(image_of(root, "D4E5F6"), frames("x")[:, :34, :3], AFFINE @ np.diag([2, 1, 1, 1]))
    save(mask_of(root, "D4E5F6"), labels()[:, :34, :3], AFFINE @ np.diag([2, 1, 1, 1]))
    rows = usual_rows()
    rows[2][4], rows[2][2] = 2, "Philips"
    rows[1][2] = "GE"
    write_table(root, rows)
    table = summarise(MnMs().read(root))
    assert [(row.centre, row.split, row.subjects, row.labelled) for row in table] == [
        (1, "train", 2, 1),
        (2, "val", 1, 1),
        (2, "test", 1, 1),
    ]
    assert table[2].vendors == ("Philips",)
    assert table[2].spacing_median == pytest.approx((3.0, 1.25, 9.6))
    assert (table[2].matrix_min, table[2].matrix_max) == ((40, 34), (40, 34))
    assert (table[0].slices_min, table[2].slices_max) == (4, 3)
    assert table[0].labels is None
    assert summarise(MnMs().check(root))[0].labels == (0, 1, 2, 3)


# --- real data -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "subjects", "centres"), [("mnms-six", 6, {1, 2, 3, 4}), ("acdc-as-mnms", 33, {1, 2, 3})]
)
def test_real_releases_are_sound(name: str, subjects: int, centres: set[int]) -> None:
    if not (REAL / name).is_dir():
        pytest.skip(f"{name} is not here; set FEDPRIVSEG_DATA")
    release = MnMs().check(REAL / name)
    assert release.faults == ()
    assert len(release.subjects) == subjects
    assert {subject.centre for subject in release.subjects} == centres
    assert all(row.labels == (0, 1, 2, 3) for row in summarise(release))
    subject = release.subjects[0]
    whole = nib.load(subject.image)
    np.testing.assert_array_equal(
        MnMs().load(subject, default_task())["ES"].image, whole.get_fdata(dtype=np.float32)[..., subject.frames["ES"]]
    )
