"""DICOM in, de-identified DICOM and NIfTI out."""

from __future__ import annotations

import gzip
import json
import logging
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from fedprivseg.core.errors import DataError, FolderError, RequestError
from fedprivseg.imaging.dicom.concerns import BODY_PARTS, FACE_PARTS, Concern, concerns, level
from fedprivseg.imaging.dicom.conversion import Import, import_dicom
from fedprivseg.imaging.dicom.header_record import Record
from fedprivseg.imaging.dicom.headers import DATABASE, Deidentifier
from fedprivseg.imaging.scrub import findings

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("dicomanonymizer")
pytest.importorskip("dcm2niix")

from pydicom.data import get_testdata_file  # noqa: E402
from pydicom.dataelem import DataElement  # noqa: E402
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset  # noqa: E402
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian  # noqa: E402

SECRET = bytes(range(32))
OTHER = bytes(range(1, 33))
PSEUDONYM = "a1b2c3d4e5f60718"

MARK = "Leaked"
"""Stands in every text that must not come out, whatever else is in it; in no name, so that no text goes for the name in it."""

NAME = "Weiming"
"""In all names and in what may stay unless a name is in it."""

DATES = ("20210317", "19371104", "101112.5")
CHINESE = "张伟"

SHAPE = (4, 12, 10)  # slices, rows, columns
SPACING = (1.5, 1.25, 8.0)  # between rows, columns, slices in mm
ROW = np.array([0.96, 0.28, 0.0])  # direction along a row, in DICOM's patient axes (left, posterior, superior)
COLUMN = np.array([0.0, 0.0, -1.0])  # down a column
FIRST = np.array([-31.0, 17.0, 42.0])  # centre of the first pixel of the first slice, in mm
NORMAL = np.cross(ROW, COLUMN)
PIXELS = np.random.default_rng(0).integers(0, 4000, SHAPE).astype("<u2")

UIDS = {
    name: f"1.2.826.0.1.3680043.99.{number}" for number, name in enumerate(("study", "series", "frame"), start=7001)
}


def instance(number: int) -> str:
    return f"1.2.826.0.1.3680043.99.8000.{number}"


def plain(number: int) -> FileDataset:
    """One slice of a cardiac MR series, with nothing in it that needs to go but dates, names and UIDs."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    meta.MediaStorageSOPInstanceUID = instance(number)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    image.SpecificCharacterSet = "ISO_IR 192"
    image.SOPClassUID, image.SOPInstanceUID = meta.MediaStorageSOPClassUID, instance(number)
    image.StudyInstanceUID, image.SeriesInstanceUID = UIDS["study"], UIDS["series"]
    image.FrameOfReferenceUID = UIDS["frame"]
    image.PatientName, image.PatientID = f"{NAME}^{CHINESE}", "HN-4711"
    image.PatientBirthDate, image.PatientSex, image.PatientAge = DATES[1], "F", "083Y"
    image.StudyDate = image.SeriesDate = image.AcquisitionDate = image.ContentDate = DATES[0]
    image.StudyTime = image.AcquisitionTime = DATES[2]
    image.AccessionNumber, image.ReferringPhysicianName, image.StudyID = f"ACC{MARK}", f"{NAME}^Doctor", f"{MARK}2"
    image.Modality, image.BodyPartExamined, image.Manufacturer = "MR", "HEART", "SIEMENS"
    image.ImageType = ["ORIGINAL", "PRIMARY", "M"]
    image.ScanningSequence, image.SequenceVariant, image.MRAcquisitionType = "GR", "SK", "2D"
    image.RepetitionTime, image.EchoTime, image.FlipAngle, image.MagneticFieldStrength = "3.2", "1.6", "50", "1.5"
    image.SeriesNumber, image.InstanceNumber, image.AcquisitionNumber = "3", str(number), "1"
    image.PatientPosition = "HFS"
    image.PixelSpacing, image.SliceThickness, image.SpacingBetweenSlices = list(SPACING[:2]), "6", str(SPACING[2])
    image.ImageOrientationPatient = [*ROW, *COLUMN]
    image.ImagePositionPatient = [round(float(x), 6) for x in FIRST + (number - 1) * SPACING[2] * NORMAL]
    image.Rows, image.Columns, image.SamplesPerPixel, image.PhotometricInterpretation = *SHAPE[1:], 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
    image.PixelData = PIXELS[number - 1].tobytes()
    return image


def item(**values: Any) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def planted(number: int) -> FileDataset:
    """The same slice with identifying text wherever one can hide it."""
    image = plain(number)
    # standard attributes, in the table and not in it
    image.InstitutionName, image.InstitutionAddress, image.StationName = (
        f"{MARK} Hospital",
        f"{MARK} Street",
        f"{MARK}ST",
    )
    image.StudyDescription, image.SeriesDescription, image.ProtocolName = (
        f"{MARK} study",
        f"{MARK} cine",
        f"{MARK} prot",
    )
    image.ImageComments, image.PatientComments, image.AdditionalPatientHistory = (f"{MARK} {text}" for text in "abc")
    image.OtherPatientIDs, image.PatientAddress, image.OperatorsName = "HN-4711-1", f"{MARK} 5", f"{NAME}^Op"
    image.DeviceSerialNumber, image.AcquisitionDateTime = f"{MARK}SN", f"{DATES[0]}{DATES[2]}"
    image.ReceiveCoilName, image.AcquisitionProtocolDescription = f"{MARK}COIL", f"{MARK} apd"
    image.ContrastBolusAgent, image.ContrastBolusRoute = f"{MARK} agent", f"{MARK} route"
    image.WindowCenterWidthExplanation, image.PixelSpacingCalibrationDescription = f"{MARK} w", f"{MARK} cal"
    image.RequestedProcedureDescription, image.TextValue, image.PatientBreedDescription = (f"{MARK} {n}" for n in "xyz")
    image.RetrieveURL, image.StorageURL = f"http://{MARK}.example", f"http://{MARK}.example/2"
    image.ICCProfile = f"{MARK} profile ".encode()
    image.PatientInstitutionResidence, image.StudyStatusID = f"{MARK} home", MARK.upper()
    image.add_new(0x00089999, "LO", f"{MARK} unknown")  # no such attribute
    image.add_new(0x00189087, "LT", f"{MARK} b value")  # DiffusionBValue is an FD
    image.add_new(0xFFFCFFFC, "OB", f"{MARK} padding ".encode())
    image[0x00180083] = DataElement(0x00180083, "LO", f"{MARK} average")  # NumberOfAverages is a DS
    image[0x00100021] = DataElement(0x00100021, "ST", f"{MARK} issuer")  # IssuerOfPatientID is an LO
    image[0x00181251] = DataElement(0x00181251, "CS", f"{MARK}COIL".upper())  # TransmitCoilName is an SH
    image[0x00181400] = DataElement(
        0x00181400, "UR", f"{MARK}:protocol"
    )  # AcquisitionDeviceProcessingDescription is an LO
    image.PercentSampling = "12345.678"  # becomes text in `store`
    # attributes that stay, with a word of the patient's name in them
    image.SoftwareVersions, image.SequenceName, image.ScanOptions = f"V1 {NAME}", f"x{NAME}1", [NAME.upper(), "FC"]
    image.ManufacturerModelName, image.PulseSequenceName = f"{CHINESE}", f"{NAME}seq"
    # sequences: in the table, not in it, one within another, with private attributes
    deep = item(PatientName=f"{NAME}^Deep", CodeMeaning=f"{MARK} meaning", ReferencedSOPInstanceUID=instance(1))
    deep.private_block(0x0011, f"{MARK} CREATOR", create=True).add_new(1, "LO", f"{MARK} private deep")
    middle = item(CodeValue=f"{MARK}C", CodingSchemeDesignator="DCM", AnatomicRegionModifierSequence=[deep])
    image.AnatomicRegionSequence = [middle, item(LongCodeValue=f"{MARK} long", StudyDate=DATES[0])]
    image.RequestAttributesSequence = [item(RequestedProcedureID=f"{MARK}R", ScheduledProcedureStepDescription=MARK)]
    image.ReferencedImageSequence = [item(ReferencedSOPInstanceUID=instance(2), PatientID="HN-4711-9")]
    image.ReferencedPerformedProcedureStepSequence = [item(ReferencedSOPInstanceUID=instance(3), ImageComments=MARK)]
    image.MRTransmitCoilSequence = [item(TransmitCoilName=f"{MARK}T", PatientBirthDate=DATES[1])]
    image.OriginalAttributesSequence = [item(ModifiedAttributesSequence=[item(PatientID="HN-4711-8")])]
    image.IconImageSequence = [item(PixelData=f"{MARK} icon ".encode(), Rows=1, Columns=12, BitsAllocated=8)]
    # private attributes, overlays, curves
    block = image.private_block(0x0029, f"{MARK} CSA", create=True)
    block.add_new(1, "LT", f"{MARK} private")
    block.add_new(2, "SQ", [item(PatientName=f"{NAME}^Private")])
    image.add_new(0x60000010, "US", 12)
    image.add_new(0x60001500, "LO", f"{MARK} overlay")
    image.add_new(0x60003000, "OB", f"{MARK} drawn ".encode())
    image.add_new(0x50002500, "LO", f"{MARK} curve")
    # outside the attributes
    image.preamble = f"{MARK} preamble".encode().ljust(128, b"\0")
    image.file_meta.SourceApplicationEntityTitle = f"{MARK}AE"
    image.file_meta.PrivateInformationCreatorUID = "1.2.3.4"
    image.file_meta.PrivateInformation = f"{MARK} meta ".encode()
    image.PixelData += f"{MARK} behind the pixels ".encode()
    return image


def store(image: FileDataset, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save_as(path, enforce_file_format=True)
    body = path.read_bytes().replace(b"12345.678", f"{MARK}123".encode())
    path.write_bytes(body)


def folder(path: Path, make: Callable[[int], FileDataset] = plain, count: int = SHAPE[0]) -> Path:
    """A series as files whose names tell, in an order that is not that of the slices."""
    for number in range(1, count + 1):
        store(make(number), path / f"{MARK}-{count - number}.dcm")
    return path


def run(source: Path, target: Path, **changes: Any) -> Import:
    return import_dicom(source, target, **({"pseudonym": PSEUDONYM, "secret": SECRET} | changes))


def bodies(target: Path) -> dict[str, bytes]:
    """Every file below `target` as it is, and what is in it if it is gzipped."""
    found = {}
    for path in sorted(target.rglob("*")):
        if path.is_file():
            name = str(path.relative_to(target))
            found[name] = path.read_bytes()
            if path.suffix == ".gz":
                found[f"{name} unpacked"] = gzip.decompress(found[name])
    return found


def hidden() -> list[bytes]:
    """All that must not come out, in lower case."""
    uids = [*UIDS.values(), *(instance(number) for number in range(1, SHAPE[0] + 1)), "1.2.826.0.1.3680043.99"]
    words = [MARK, NAME, *DATES, "HN-4711", *uids]
    return [word.lower().encode() for word in words] + [CHINESE.encode(), CHINESE.encode("gb18030")]


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Import]:
    base = tmp_path_factory.mktemp("dicom")
    return base, run(folder(base / "in", planted), base / "out")


# ---------------------------------------------------------------------------------------------- nothing gets out


def test_what_is_searched_for_is_really_there_before(imported: tuple[Path, Import]) -> None:
    """The search below would find it."""
    base, _ = imported
    for body in bodies(base / "in").values():
        assert body.lower().count(MARK.lower().encode()) > 50
        assert body.lower().count(NAME.lower().encode()) >= 9
        assert all(word in body.lower() for word in (*(date.encode() for date in DATES), CHINESE.encode()))
        assert UIDS["frame"].encode() in body


def test_no_identifying_byte_survives_in_any_file_or_name(imported: tuple[Path, Import]) -> None:
    base, done = imported
    searched = bodies(base / "out")
    assert len(searched) == SHAPE[0] + 2 + 1  # DICOM, NIfTI packed and unpacked, JSON
    for name, body in searched.items():
        for word in hidden():
            assert word not in body.lower(), f"{word!r} in {name}"
            assert word not in name.lower().encode()
    for word in hidden():
        assert word not in repr(done.series[0].record).lower().encode()
        assert word not in repr((done.history, done.series[0].concerns)).lower().encode()


def test_implicit_little_endian_loses_the_same(tmp_path: Path) -> None:
    def implicit(number: int) -> FileDataset:
        image = planted(number)
        # Representations that are not written out cannot be wrong ones.
        for tag in (0x00180083, 0x00100021, 0x00181251, 0x00181400):
            del image[tag]
        image.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        return image

    run(folder(tmp_path / "in", implicit), tmp_path / "out")
    for name, body in bodies(tmp_path / "out").items():
        assert not any(word in body.lower() for word in hidden()), name


def test_nothing_is_logged_printed_or_warned_and_no_list_of_uids_is_left(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    from dicomanonymizer.simpledicomanonymizer import dictionary

    caplog.set_level(logging.DEBUG)
    for path in folder(tmp_path / "in", planted).iterdir():
        path.write_bytes(path.read_bytes().replace(b"ISO_IR 192", b"LEAKED 192"))  # pydicom warns and quotes it
    run(tmp_path / "in", tmp_path / "out")
    assert not any(MARK.lower().encode() in body.lower() for body in bodies(tmp_path / "out").values())
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / f"{MARK}.dcm").write_bytes((tmp_path / "in" / f"{MARK}-0.dcm").read_bytes()[:-60])
    with pytest.raises(DataError):
        run(tmp_path / "cut", tmp_path / "out2")
    assert not caplog.records
    assert capfd.readouterr() == ("", "")
    assert not dictionary


def test_temporary_files_are_gone_and_the_target_is_the_owner_s_alone(imported: tuple[Path, Import]) -> None:
    base, _ = imported
    assert sorted(os.listdir(base)) == ["in", "out"]
    assert stat.S_IMODE((base / "out").stat().st_mode) == 0o700
    assert sorted(str(path.relative_to(base / "out")) for path in (base / "out").rglob("*") if path.is_file()) == [
        *(f"dicom/series1/{number}.dcm" for number in range(1, SHAPE[0] + 1)),
        "nifti/series1.json",
        "nifti/series1.nii.gz",
    ]


# ---------------------------------------------------------------------------------------------- the picture stays


KEPT = (
    "Rows",
    "Columns",
    "PixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "Modality",
    "BodyPartExamined",
    "Manufacturer",
    "RepetitionTime",
    "EchoTime",
    "FlipAngle",
    "MagneticFieldStrength",
    "InstanceNumber",
    "SeriesNumber",
    "ScanningSequence",
    "ImageType",
    "SOPClassUID",
)


def test_pixels_and_geometry_of_the_dicom_survive(imported: tuple[Path, Import]) -> None:
    _, done = imported
    for number, path in enumerate(done.series[0].dicom, start=1):
        before, after = plain(number), pydicom.dcmread(path)
        assert after.PixelData == PIXELS[number - 1].tobytes()
        assert np.array_equal(after.pixel_array, PIXELS[number - 1])
        for keyword in KEPT:
            assert after[keyword].value == before[keyword].value, keyword


def test_the_nifti_has_every_pixel_where_the_dicom_has_it(imported: tuple[Path, Import]) -> None:
    """DICOM PS3.3 C.7.6.2.1.1: the centre of the pixel in `row` and `column` is at position + direction * spacing * index."""
    _, done = imported
    (path,) = done.series[0].nifti
    image = nib.load(path)
    assert sorted(image.shape) == sorted(SHAPE)
    assert sorted(image.header.get_zooms()) == pytest.approx(sorted(SPACING))
    assert image.header.get_xyzt_units()[0] == "mm"
    assert findings(image) == ()
    slices, rows, columns = np.indices(SHAPE)
    place = (
        FIRST
        + slices[..., None] * SPACING[2] * NORMAL
        + rows[..., None] * SPACING[0] * COLUMN
        + columns[..., None] * SPACING[1] * ROW
    )
    place = place * (-1, -1, 1)  # from left and posterior to NIfTI's right and anterior
    voxel = nib.affines.apply_affine(np.linalg.inv(image.affine), place)
    nearest = np.rint(voxel).astype(int)
    assert np.abs(voxel - nearest).max() < 1e-3
    assert np.array_equal(np.asarray(image.dataobj)[tuple(np.moveaxis(nearest, -1, 0))], PIXELS)


def test_the_sidecar_tells_the_physics(imported: tuple[Path, Import]) -> None:
    _, done = imported
    (path,) = done.series[0].sidecars
    sidecar = json.loads(path.read_text())
    assert (sidecar["Modality"], sidecar["RepetitionTime"], sidecar["FlipAngle"]) == ("MR", 0.0032, 50)
    assert not any("Date" in key or (key.startswith("Patient") and key != "PatientPosition") for key in sidecar)


# ---------------------------------------------------------------------------------------------- what is said of it


def test_the_dicom_says_that_and_how_it_was_de_identified(imported: tuple[Path, Import]) -> None:
    _, done = imported
    for path in done.series[0].dicom:
        image = pydicom.dcmread(path)
        assert image.PatientName == image.PatientID == PSEUDONYM
        assert image.PatientIdentityRemoved == "YES"
        assert image.LongitudinalTemporalInformationModified == "REMOVED"
        assert "2026c" in image.DeidentificationMethod
        (code,) = image.DeidentificationMethodCodeSequence
        assert (code.CodeValue, code.CodingSchemeDesignator) == ("113100", "DCM")
        assert code.CodeMeaning == "Basic Application Confidentiality Profile"
        assert not any(element.tag.is_private for element in image.iterall())
        assert image.preamble == bytes(128)
        assert image.file_meta.MediaStorageSOPInstanceUID == image.SOPInstanceUID
        assert image.PatientBirthDate in ("", "00010101")
        assert image.PatientSex == ""


def test_the_table_is_the_newest_that_the_package_has() -> None:
    import dicomanonymizer

    tables = (Path(dicomanonymizer.__file__).parent / "dicom_anonymization_databases").glob("dicomfields_*.py")
    assert max(table.stem for table in tables) == DATABASE == "dicomfields_2026c"


def test_uids_stay_consistent_within_the_folder_and_follow_from_the_secret(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", planted)

    def uids(name: str, **changes: Any) -> list[tuple[str, ...]]:
        images = [pydicom.dcmread(path) for path in run(source, tmp_path / name, **changes).series[0].dicom]
        nested = [image.AnatomicRegionSequence[0].AnatomicRegionModifierSequence[0] for image in images]
        assert {inner.ReferencedSOPInstanceUID for inner in nested} == {images[0].SOPInstanceUID}
        keywords = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
        return [tuple(str(image[keyword].value) for keyword in keywords) for image in images]

    first, again, other = uids("one"), uids("two"), uids("three", secret=OTHER)
    assert first == again
    assert not {uid for row in first for uid in row} & {uid for row in other for uid in row}
    assert len({row[0] for row in first}) == SHAPE[0]
    assert len({row[1:] for row in first}) == 1
    assert all(pydicom.uid.UID(uid).is_valid and uid.startswith("2.25.") for row in first for uid in row)


def test_a_new_uid_is_a_uuid_of_version_8_from_hmac_sha_256() -> None:
    import hashlib
    import hmac
    import uuid

    made = Deidentifier(PSEUDONYM, SECRET).uid("1.2.3")
    value = uuid.UUID(int=int(made.removeprefix("2.25.")))
    assert (value.version, value.variant) == (8, uuid.RFC_4122)
    draw = hmac.new(SECRET, b"fedprivseg uid 1\n1.2.3", hashlib.sha256).hexdigest()[:32]
    # All hex digits but those of the version (13th) and the variant (17th) are those of the draw.
    assert [a for place, a in enumerate(value.hex) if place not in (12, 16)] == [
        a for place, a in enumerate(draw) if place not in (12, 16)
    ]


def test_the_record_holds_the_listed_fields_and_no_free_text(imported: tuple[Path, Import]) -> None:
    _, done = imported
    assert done.series[0].record == Record(
        modality="MR",
        body_part="HEART",
        sex="F",
        age_band="80-84",
        manufacturer="SIEMENS",
        field_strength_t=1.5,
        row_spacing_mm=1.5,
        column_spacing_mm=1.25,
        slice_thickness_mm=6.0,
        slice_spacing_mm=8.0,
        rows=12,
        columns=10,
        images=4,
    )
    assert done.history == (
        "DICOM de-identified: PS3.15 2026c basic profile at every depth, then an allow-list; keyed UIDs",
        f"converted to NIfTI by dcm2niix {sys.modules['dcm2niix'].__version__}",
        "text in NIfTI headers cleared",
    )


@pytest.mark.parametrize(
    ("keyword", "value", "field", "expected"),
    [
        ("PatientAge", "090Y", "age_band", "90+"),
        ("PatientAge", "089Y", "age_band", "85-89"),
        ("PatientAge", "018M", "age_band", "0-4"),
        ("PatientAge", "", "age_band", None),
        ("Manufacturer", "Philips Medical Systems", "manufacturer", "PHILIPS"),
        ("Manufacturer", f"{NAME} Imaging", "manufacturer", "other"),
        ("Manufacturer", "", "manufacturer", None),
        ("PatientSex", "", "sex", None),
        ("BodyPartExamined", MARK.upper(), "body_part", "CHEST"),
        ("Modality", MARK.upper(), "modality", None),
        ("SliceThickness", "0", "slice_thickness_mm", None),
    ],
)
def test_of_free_text_only_known_words_are_read(
    tmp_path: Path, keyword: str, value: str, field: str, expected: str | None
) -> None:
    def changed(number: int) -> FileDataset:
        image = plain(number)
        setattr(image, keyword, value)
        return image

    done = run(
        folder(tmp_path / "in", changed, 1), tmp_path / "out", body_part="chest" if field == "body_part" else None
    )
    assert getattr(done.series[0].record, field) == expected
    # And they go from the DICOM too, because the patient's name is in them or they are no known words.
    for body in bodies(tmp_path / "out").values():
        assert not any(word.lower().encode() in body.lower() for word in (MARK, NAME))


# ---------------------------------------------------------------------------------------------- levels


def test_a_cardiac_series_raises_no_concern_and_is_level_3(imported: tuple[Path, Import]) -> None:
    _, done = imported
    assert (done.series[0].concerns, done.series[0].level) == ((), 3)


CONCERNS: dict[str, tuple[dict[str, Any], str]] = {
    "head": ({"BodyPartExamined": "HEAD"}, "the body part shows a face or a head"),
    "brain with blanks": ({"BodyPartExamined": "SKULL BASE"}, "the body part shows a face or a head"),
    "no body part": ({"BodyPartExamined": ""}, "a face cannot be ruled out"),
    "unknown body part": ({"BodyPartExamined": "ZHANG"}, "a face cannot be ruled out"),
    "photograph": ({"Modality": "XC", "BurnedInAnnotation": "NO"}, "personal biometric images"),
    "recognisable": ({"RecognizableVisualFeatures": "YES"}, "a person is recognisable"),
    "description": ({"StudyDescription": "MRT Schädel/Brain"}, "a description speaks of a head"),
    "protocol": ({"ProtocolName": "t1_mprage_sag"}, "a description speaks of a head"),
    "chinese description": ({"SeriesDescription": "头部平扫"}, "a description speaks of a head"),
    "nested description": (
        {"AnatomicRegionSequence": [item(CodeMeaning="Head and neck")]},
        "a description speaks of a head",
    ),
    "burned in": ({"BurnedInAnnotation": "YES"}, "text is burned into the picture"),
    "ultrasound": ({"Modality": "US"}, "does not say that no text is burned"),
    "secondary capture": ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "a secondary capture"),
    "multi-frame capture": ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.4"}, "a secondary capture"),
    "converted": ({"ConversionType": "WSD"}, "a secondary capture"),
    "screen save": ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "saved from a screen or a report"),
    "embedded overlay": ({"overlay": 12}, "unused bits of the pixels"),
}


@pytest.mark.parametrize(("changes", "reason"), CONCERNS.values(), ids=CONCERNS)
def test_a_face_or_burned_in_text_raises_the_level_to_4(changes: dict[str, Any], reason: str) -> None:
    image = plain(1)
    for keyword, value in changes.items():
        if keyword == "overlay":
            image.add_new(0x60020102, "US", value)
        else:
            setattr(image, keyword, value)
    found = concerns(image, None)
    assert len(found) == 1
    assert found[0].level == level(found) == 4
    assert reason in found[0].reason
    assert not any(isinstance(value, str) and len(value) > 4 and value in found[0].reason for value in changes.values())


HARMLESS: tuple[dict[str, Any], ...] = (
    {},
    {"BurnedInAnnotation": "NO"},
    {"Modality": "US", "BurnedInAnnotation": "NO"},
    {"ImageType": "ORIGINAL"},
    {"StudyDescription": "Surface coil, overhead, sinus rhythm, coronary sinus"},
    {"PatientOrientationModifierCodeSequence": [item(CodeMeaning="headfirst")]},
)


@pytest.mark.parametrize("changes", HARMLESS)
def test_what_is_no_face_and_no_text_raises_nothing(changes: dict[str, Any]) -> None:
    image = plain(1)
    for keyword, value in changes.items():
        setattr(image, keyword, value)
    assert concerns(image, None) == ()


def test_what_the_site_states_fills_a_gap_and_lifts_nothing() -> None:
    silent, head = plain(1), plain(1)
    del silent.BodyPartExamined
    head.BodyPartExamined = "HEAD"
    assert concerns(silent, "HEART") == ()
    assert concerns(silent, "HEAD") == (Concern(4, "the body part shows a face or a head"),)
    assert concerns(head, "HEART") == (Concern(4, "the body part shows a face or a head"),)
    assert not BODY_PARTS & FACE_PARTS


def test_one_image_raises_the_level_of_its_series(tmp_path: Path) -> None:
    def mixed(number: int) -> FileDataset:
        image = plain(number)
        image.BurnedInAnnotation = "YES" if number == 3 else "NO"
        return image

    (series,) = run(folder(tmp_path / "in", mixed), tmp_path / "out").series
    assert (series.level, len(series.concerns)) == (4, 1)


# ---------------------------------------------------------------------------------------------- refusals


def test_files_that_are_no_dicom_are_refused_by_number_and_not_by_name(tmp_path: Path) -> None:
    source = folder(tmp_path / "in")
    for number in range(2):
        (source / f"{MARK}{number}.txt").write_text(f"{MARK} was here")
    (source / "sub").mkdir()
    (source / "sub" / f"{MARK}.dcm").write_bytes(
        (source / f"{MARK}-0.dcm").read_bytes().replace(b"1.5\\1.25", b"x.5\\1.25")
    )
    (source / f"{MARK}-link.dcm").symlink_to(source / f"{MARK}-0.dcm")
    store(plain(1), source / "sub" / "copy.dcm")
    report = plain(1)
    report.SOPInstanceUID = report.file_meta.MediaStorageSOPInstanceUID = instance(99)
    del report.Rows, report.PixelData
    store(report, source / "sub" / "report.dcm")
    with pytest.raises(DataError) as caught:
        run(source, tmp_path / "out")
    said = str(caught.value)
    assert said.startswith(
        "of 10 files, 1 are DICOM files without a picture, 1 are copies of others, 1 are damaged DICOM files, "
        "1 are links or no plain files, 2 are no DICOM files. Nothing was imported"
    )
    assert MARK not in said
    assert str(tmp_path) not in said
    assert os.listdir(tmp_path) == ["in"]


@pytest.mark.parametrize("kind", ["absent", "empty", "a file"])
def test_a_folder_without_files_is_refused(tmp_path: Path, kind: str) -> None:
    source = tmp_path / "in"
    if kind == "empty":
        (source / "sub").mkdir(parents=True)
    elif kind == "a file":
        source.write_bytes(b"")
    with pytest.raises(DataError, match="absent, or holds no files"):
        run(source, tmp_path / "out")


def test_a_link_to_a_folder_is_not_followed(tmp_path: Path) -> None:
    folder(tmp_path / "elsewhere")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="1 are links"):
        run(tmp_path / "in", tmp_path / "out")


def test_images_of_two_patients_are_refused(tmp_path: Path) -> None:
    def two(number: int) -> FileDataset:
        image = plain(number)
        image.PatientID = f"{MARK}-{number % 2}"
        return image

    with pytest.raises(DataError, match="images of 2 patients") as caught:
        run(folder(tmp_path / "in", two), tmp_path / "out")
    assert MARK not in str(caught.value)


def spoiled(**changes: Any) -> Callable[[int], FileDataset]:
    def make(number: int) -> FileDataset:
        image = plain(number)
        if number == 2:
            for keyword, value in changes.items():
                setattr(image, keyword, value)
        return image

    return make


@pytest.mark.parametrize(
    "changes",
    [
        {"PixelData": PIXELS[0].tobytes()[:-2]},
        {"SOPClassUID": "1.2.3.4"},
        {"BitsAllocated": 0},
    ],
    ids=["pixels cut short", "private kind", "no bits"],
)
def test_images_that_would_not_come_through_whole_are_refused_and_leave_nothing(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    with pytest.raises(DataError, match="1 of 4 images of a series cannot be de-identified"):
        run(folder(tmp_path / "in", spoiled(**changes)), tmp_path / "out")
    assert os.listdir(tmp_path) == ["in"]


def test_a_geometry_that_cannot_be_read_is_refused_and_not_dropped(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", count=1)
    (path,) = source.iterdir()
    body = path.read_bytes()
    assert body.count(b"-31.0\\17.0\\42.0") == 1
    path.write_bytes(body.replace(b"-31.0\\17.0\\42.0", b"-31.0\\1x.0\\42.0"))
    with pytest.raises(DataError, match="1 of 1 images of a series cannot be de-identified"):
        run(source, tmp_path / "out")


def test_the_target_is_never_overwritten(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", count=1)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "what was there").touch()
    with pytest.raises(FolderError, match="exists already"):
        run(source, tmp_path / "out")
    assert os.listdir(tmp_path / "out") == ["what was there"]
    with pytest.raises(FolderError, match="cannot be written") as caught:
        run(source, tmp_path / "none" / "out")
    assert str(tmp_path) not in str(caught.value)


def converter(path: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import dcm2niix

    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)
    monkeypatch.setattr(dcm2niix, "bin", str(path))


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("/bin/sleep 60", "did not finish a series in 0.3 s"),
        ("exit 8", r"exit status 8, 0 files"),
        ("exit 0", r"exit status 0, 0 files"),
        ('while [ "$1" != -o ]; do shift; done; echo no NIfTI > "$2/image.nii"', r"exit status 0, 1 files"),
    ],
    ids=["too slow", "fails", "makes nothing", "makes nonsense"],
)
def test_a_conversion_that_fails_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    converter(tmp_path / "fake", script, monkeypatch)
    with pytest.raises(DataError, match=said):
        run(folder(tmp_path / "in", count=1), tmp_path / "out", timeout_s=0.3 if "sleep" in script else 20)
    assert sorted(os.listdir(tmp_path)) == ["fake", "in"]


def test_a_conversion_that_loses_slices_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nib.save(nib.Nifti1Image(np.zeros((10, 12, 3), np.int16), np.eye(4)), tmp_path / "three.nii")
    script = f'while [ "$1" != -o ]; do shift; done; /bin/cp {tmp_path}/three.nii "$2/image.nii"'
    converter(tmp_path / "fake", script, monkeypatch)
    with pytest.raises(DataError, match="360 of 480 pixels"):
        run(folder(tmp_path / "in"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_converter_sees_no_original_and_gets_no_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = (
        f'for word; do last="$word"; done; /usr/bin/env > {tmp_path}/env; /bin/cp -r "$last" {tmp_path}/seen; exit 1'
    )
    converter(tmp_path / "fake", script, monkeypatch)
    monkeypatch.setenv("FEDPRIVSEG_TEST_SECRET", MARK)
    with pytest.raises(DataError):
        run(folder(tmp_path / "in", planted, 1), tmp_path / "out")
    assert MARK not in (tmp_path / "env").read_text()
    seen = bodies(tmp_path / "seen")
    assert list(seen) == ["1.dcm"]
    assert not any(word in seen["1.dcm"].lower() for word in hidden())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pseudonym": ""}, "1 to 64 letters"),
        ({"pseudonym": f"{MARK}^Wei"}, "1 to 64 letters"),
        ({"pseudonym": "../x"}, "1 to 64 letters"),
        ({"secret": bytes(31)}, "not 32 bytes"),
        ({"secret": "x" * 32}, "not 32 bytes"),
        ({"body_part": "TAIL"}, "known are: ABDOMEN"),
        ({"timeout_s": 0}, "above zero"),
        ({"timeout_s": float("nan")}, "above zero"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_before_anything_is_read(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(RequestError, match=said) as caught:
        run(tmp_path / "none", tmp_path / "out", **changes)
    assert not isinstance(caught.value, DataError)
    assert MARK not in str(caught.value)


@pytest.mark.parametrize("package", ["pydicom", "dicomanonymizer.simpledicomanonymizer", "dcm2niix"])
def test_without_a_package_the_error_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(RequestError, match=r"fedprivseg\[dicom\]"):
        run(tmp_path, tmp_path / "out")


def test_the_modules_do_not_load_pydicom_by_themselves() -> None:
    import subprocess

    # nibabel takes pydicom along where it finds it; here it finds none.
    code = (
        "import sys; sys.modules['pydicom'] = None; import fedprivseg.imaging.dicom.conversion; "
        "sys.exit(bool({'dicomanonymizer', 'dcm2niix'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---------------------------------------------------------------------------------------------- real files


def bundled(name: str) -> Path:
    """A test file that comes with pydicom itself; nothing is fetched."""
    found = get_testdata_file(name, download=False)
    if found is None:
        pytest.skip(f"this pydicom comes without {name}")
    return Path(found)


def copied(tmp_path: Path, *paths: Path) -> Path:
    (tmp_path / "in").mkdir()
    for number, path in enumerate(paths):
        (tmp_path / "in" / f"{number}").write_bytes(path.read_bytes())
    return tmp_path / "in"


@pytest.mark.parametrize(
    "name",
    [
        "MR_small.dcm",
        "MR_small_implicit.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_RLE.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "MR_small_padded.dcm",
        "CT_small.dcm",
    ],
)
def test_bundled_images_of_every_transfer_syntax_come_through(tmp_path: Path, name: str) -> None:
    path = bundled(name)
    done = run(copied(tmp_path, path), tmp_path / "out", body_part="ABDOMEN")
    before, after = pydicom.dcmread(path), pydicom.dcmread(done.series[0].dicom[0])
    assert after.PixelData in (before.PixelData, before.PixelData[: 64 * 64 * 2])  # padding is cut off
    for keyword in ("PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "Rows", "Columns"):
        assert after[keyword].value == before[keyword].value
    voxels = np.asarray(nib.load(done.series[0].nifti[0]).dataobj)[:, :, 0]
    if not before.file_meta.TransferSyntaxUID.is_encapsulated:
        before.PixelData = before.PixelData[: before.Rows * before.Columns * 2]
        stored = before.pixel_array * float(before.get("RescaleSlope", 1)) + float(before.get("RescaleIntercept", 0))
        assert np.array_equal(np.sort(voxels, axis=None), np.sort(stored, axis=None))
    else:
        plain_ = pydicom.dcmread(bundled("MR_small.dcm")).pixel_array  # the same picture, not compressed
        assert np.array_equal(np.sort(voxels, axis=None), np.sort(plain_, axis=None))
    told = [str(before[keyword].value) for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "StudyDate")]
    told += [str(before.get(keyword) or "") for keyword in ("InstitutionName", "StudyDescription", "AccessionNumber")]
    told = [word for word in told if word not in before.Manufacturer]  # MR_small's institution has the vendor's name
    for body in bodies(tmp_path / "out").values():
        assert not any(len(word) > 3 and word.encode() in body for word in told)


def test_a_bundled_series_becomes_one_volume_and_a_bundled_head_is_level_4(tmp_path: Path) -> None:
    root = bundled("MR_small.dcm").parent / "dicomdirtests"
    chest = sorted((root / "98892001" / "CT5N").glob("*"))
    head = sorted((root / "77654033" / "CT2").glob("*"))
    if not chest or not head:
        pytest.skip("this pydicom comes without the series")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (series,) = run(copied(tmp_path / "a", *chest), tmp_path / "a" / "out").series
    assert nib.load(series.nifti[0]).shape == (16, 16, 5)
    assert series.record.images == 5
    (series,) = run(copied(tmp_path / "b", *head), tmp_path / "b" / "out").series
    assert series.level == 4
    assert "the body part shows a face or a head" in {concern.reason for concern in series.concerns}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no_meta.dcm", "1 are no DICOM files"),
        ("rtplan.dcm", "1 are DICOM files without a picture"),
        ("test-SR.dcm", "1 are DICOM files without a picture"),
        ("MR_truncated.dcm", "1 of 1 images of a series cannot be de-identified"),
        ("badVR.dcm", "1 are damaged DICOM files"),
    ],
)
def test_bundled_files_that_are_no_whole_images_are_refused(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        run(copied(tmp_path, bundled(name)), tmp_path / "out")


def test_a_bundled_secondary_capture_is_level_4(tmp_path: Path) -> None:
    (series,) = run(copied(tmp_path, bundled("SC_rgb_rle.dcm")), tmp_path / "out", body_part="CHEST").series
    assert series.level == 4
    assert any("secondary capture" in concern.reason for concern in series.concerns)


def test_two_series_in_one_folder_stay_apart(tmp_path: Path) -> None:
    def second(number: int) -> FileDataset:
        image = plain(number)
        image.SeriesInstanceUID, image.SOPInstanceUID = UIDS["series"] + ".2", instance(number + 10)
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        return image

    folder(tmp_path / "in" / "one")
    folder(tmp_path / "in" / "two", second, 3)
    done = run(tmp_path / "in", tmp_path / "out")
    assert [series.record.images for series in done.series] == [4, 3]
    assert [path.name for series in done.series for path in series.nifti] == ["series1.nii.gz", "series2.nii.gz"]


def test_companion_files_of_macos_are_passed_over(tmp_path: Path) -> None:
    source = folder(tmp_path / "in")
    (source / f"._{MARK}-0.dcm").write_bytes(b"\x00\x05\x16\x07" + MARK.encode())
    assert run(source, tmp_path / "out").series[0].record.images == SHAPE[0]
    assert not any(MARK.encode() in body for body in bodies(tmp_path / "out").values())
