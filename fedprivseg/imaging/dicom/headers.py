"""The header of one DICOM image without what tells of a person: PS3.15 table E.1-1, and then an allow-list.

The table is that of the edition `DATABASE`, as the package dicom-anonymizer has it, with the Basic Application Level
Confidentiality Profile and no options. That package looks at the outermost level alone, leaves what the table does not name,
and keeps a list of UIDs for as long as the process lives. Here the table is therefore applied at every depth, UIDs are made by
a key, and what is left afterwards has to be a number, a code string, or named in `KEPT_TEXT`, and to hold no word of a person's
name: minimal necessity, T/SCGS 313008-2024 clauses 5.1.1 and 5.1.2-d. Code strings are the words of a standard or a vendor, and
nobody can tell those from any others: whoever writes a diagnosis into one is not caught.

The pixels are not looked into. Native pixel data is cut to the length that the header asks for; compressed pixel data is passed
on as it is, and comments within the compressed stream with it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any, final

from fedprivseg.core.errors import RequestError
from fedprivseg.imaging.dicom.concerns import BODY_PARTS, FACE_PARTS, MODALITIES, term
from fedprivseg.imaging.dicom.library import library

DATABASE = "dicomfields_2026c"
EDITION = "PS3.15 2026c"
SECRET_BYTES = 32

KEPT_GROUPS = frozenset({0x0008, 0x0010, 0x0018, 0x0020, 0x0028, 0x0040, 0x0054, 0x5200, 0x7FE0})
"""Groups that place, scale and describe pictures; (0010) holds the patient, of whom `KEPT_PATIENT` alone stays."""

KEPT_PATIENT = frozenset({"PatientName", "PatientID", "PatientBirthDate", "PatientSex"})
"""Emptied by the table, and then name and ID are the pseudonym; an image must have these four."""

KEPT_TEXT = frozenset(
    {
        "ConvolutionKernel",
        "Manufacturer",
        "ManufacturerModelName",
        "PulseSequenceName",
        "RescaleType",
        "SequenceName",
        "SoftwareVersions",
        "StackID",
    }
)
"""What a converter needs to read a vendor's pictures rightly. The table does not count them among identifying attributes."""

KEPT_BULK = frozenset(
    {
        "PixelData",
        "FloatPixelData",
        "DoubleFloatPixelData",
        "ExtendedOffsetTable",
        "ExtendedOffsetTableLengths",
        "LUTData",
        "RedPaletteColorLookupTableData",
        "GreenPaletteColorLookupTableData",
        "BluePaletteColorLookupTableData",
    }
)

NEEDED = frozenset(
    {
        "BitsAllocated",
        "BitsStored",
        "Columns",
        "HighBit",
        "ImageOrientationPatient",
        "ImagePositionPatient",
        "ImagerPixelSpacing",
        "InstanceNumber",
        "NumberOfFrames",
        "PerFrameFunctionalGroupsSequence",
        "PhotometricInterpretation",
        "PixelData",
        "PixelMeasuresSequence",
        "PixelRepresentation",
        "PixelSpacing",
        "PlaneOrientationSequence",
        "PlanePositionSequence",
        "RescaleIntercept",
        "RescaleSlope",
        "Rows",
        "SOPClassUID",
        "SOPInstanceUID",
        "SamplesPerPixel",
        "SeriesInstanceUID",
        "SharedFunctionalGroupsSequence",
        "SliceThickness",
        "SpacingBetweenSlices",
        "StudyInstanceUID",
    }
)
"""Without one of these, if it was there, the picture would be another one or lie elsewhere: such a file is refused."""

PRIVATE, UNKNOWN = "private attributes", "unknown attributes"
"""Names of what was removed and has none in the standard's dictionary: a private one is a vendor's text."""

_PSEUDONYM = re.compile(r"[A-Za-z0-9-]{1,64}")
_CODE_STRING = re.compile(r"[A-Z0-9_ ]{0,16}")
_CHARACTER_SET = re.compile(r"ISO_IR \d{1,3}|ISO 2022 IR \d{1,3}|GB18030|GBK")
_KNOWN_TERMS: Mapping[str, Callable[[str], bool]] = MappingProxyType(
    {
        "BodyPartExamined": lambda text: term(text) in BODY_PARTS | FACE_PARTS,
        "Modality": lambda text: text in MODALITIES,
        "SpecificCharacterSet": lambda text: _CHARACTER_SET.fullmatch(text) is not None,
    }
)
_NAME = re.compile(r"[^\W_]{4,}|[\u4e00-\u9fff]{2,}")
_CODES = frozenset({"AccessionNumber", "OtherPatientIDs", "PatientID"})
_NUMERIC = frozenset({"AT", "DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"})
_TEXT = frozenset({"AE", "AS", "DA", "DT", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UR", "UT"})
_PLACEHOLDERS = frozenset({"ANONYMIZED", "00010101", "00010101010101.000000+0000", "000000.00"})
"""What dicom-anonymizer puts where a standard asks for some value."""


class Unfit(Exception):
    """A file that cannot be de-identified, or that would no longer be the same picture. Says nothing of the file."""


@final
class Deidentifier:
    """De-identifies the images of one patient alike.

    pseudonym: in place of name and ID, 1 to 64 letters, digits and hyphens. secret: 32 bytes of the site's, from which new UIDs
    follow; the same secret gives the same UIDs, so that images that come later join their series. Nothing prints it. Raises
    RequestError for another pseudonym or secret, or if a package is missing.
    """

    __slots__ = ("_actions", "_anonymizer", "_many", "_pseudonym", "_pydicom", "_secret", "_uids")

    def __init__(self, pseudonym: str, secret: bytes) -> None:
        """See the class."""
        if not _PSEUDONYM.fullmatch(pseudonym):
            raise RequestError(
                "the pseudonym is not 1 to 64 letters, digits and hyphens; make one from the site's secret."
            )
        if type(secret) is not bytes or len(secret) != SECRET_BYTES:
            raise RequestError(
                f"the secret is not {SECRET_BYTES} bytes; draw one from the operating system and keep it."
            )
        self._pseudonym, self._secret = pseudonym, secret
        self._pydicom = library("pydicom")
        self._anonymizer = library("dicomanonymizer.simpledicomanonymizer")
        self._many = library("pydicom.multival").MultiValue
        self._uids = frozenset(library("pydicom.uid").UID_dictionary)
        self._actions = self._table()

    def __repr__(self) -> str:
        return "Deidentifier()"

    @property
    def history(self) -> str:
        """What is done, in one line."""
        return f"DICOM de-identified: {EDITION} basic profile at every depth, then an allow-list; keyed UIDs"

    def apply(self, dataset: Any) -> frozenset[str]:
        """De-identify `dataset`, a pydicom FileDataset with its pixels, in place. Raises Unfit if that cannot be done.

        Returns the keywords of the attributes that were taken out or emptied, with those of the sequences that they stood in
        before a dot; `PRIVATE` and `UNKNOWN` for attributes that the dictionary does not have.
        """
        try:
            names = frozenset(_words(dataset))
            before = {keyword for keyword, held in _held(dataset) if held}
            _each(dataset, self._decoded)
            _each(dataset, self._tabled)
            _each(dataset, lambda part: self._swept(part, names))
            self._trim(dataset)
            left = {keyword for keyword, held in _held(dataset) if held}
            self._sign(dataset)
        except Unfit:
            raise
        except Exception:
            # Whatever the libraries stumble over, its message may quote the file.
            raise Unfit from None
        gone = before - left
        # Of a sequence that went as a whole its own name is enough.
        return frozenset(keyword for keyword in gone if not _within(keyword) & gone)

    def uid(self, old: str) -> str:
        """The UID in place of `old`: 2.25 and a UUID of version 8 (RFC 9562) from HMAC-SHA-256, as PS3.5 annex B.2 has it."""
        draw = hmac.new(self._secret, b"fedprivseg uid 1\n" + old.encode(), hashlib.sha256).digest()
        number = int.from_bytes(draw[:16], "big")
        number = number & ~(0xF << 76) | 8 << 76
        number = number & ~(0x3 << 62) | 2 << 62
        return f"2.25.{number}"

    def _table(self) -> dict[tuple[int, ...], Callable[[Any, Any], None]]:
        """The table's actions. UIDs are left to `_swept`, since the package would draw them and keep a list; sequences are
        removed, since it would keep their layout with words in it."""
        anonymizer = self._anonymizer
        actions: dict[tuple[int, ...], Callable[[Any, Any], None]] = anonymizer.initialize_actions(DATABASE)
        representation = library("pydicom.datadict").dictionary_VR
        for tag, action in actions.items():
            known = len(tag) == 2 and self._keyword(tag) != ""
            kind = representation(tag) if known else ""
            if kind == "SQ":
                actions[tag] = anonymizer.delete
            elif kind == "UI" and action is not anonymizer.delete:
                actions[tag] = anonymizer.keep
        return actions

    def _keyword(self, tag: Any) -> str:
        return str(library("pydicom.datadict").keyword_for_tag(tag))

    def _decoded(self, dataset: Any) -> None:
        """Removes what is private, of another group, not in the dictionary, not readable, or not of the kind it should be."""
        representation = library("pydicom.datadict").dictionary_VR
        for tag in list(dataset.keys()):
            keyword = "" if tag.is_private or tag.group not in KEPT_GROUPS else self._keyword(tag)
            if not keyword or (tag.group == 0x0010 and keyword not in KEPT_PATIENT):
                del dataset[tag]
                continue
            try:
                kind = dataset[tag].VR
            except Exception:
                kind = None
            if kind is None or not set(kind.split(" or ")) <= set(representation(tag).split(" or ")):
                _remove(dataset, tag, keyword)

    def _tabled(self, dataset: Any) -> None:
        self._anonymizer.anonymize_dataset(
            dataset, delete_private_tags=True, base_rules_gen=lambda: dict(self._actions)
        )

    def _swept(self, dataset: Any, names: frozenset[str]) -> None:
        """Removes what the table left and no list keeps, or what holds one of the `names`, and puts new UIDs in place of old
        ones."""
        for tag in list(dataset.keys()):
            element, keyword = dataset[tag], self._keyword(tag)
            kinds = set(element.VR.split(" or "))
            if kinds == {"UI"}:
                many = element.VM > 1
                new = [
                    uid if uid in self._uids else self.uid(uid) for uid in (element.value if many else [element.value])
                ]
                element.value = new if many else new[0]
            elif kinds == {"SQ"}:
                # Emptied items are of no use, but those that are needed keep their place among the frames.
                items = [item for item in element.value if keyword in NEEDED or self._holds(item, names)]
                element.value = items
                if not items:
                    _remove(dataset, tag, keyword)
            elif not self._stays(keyword, kinds, element.value, names):
                _remove(dataset, tag, keyword)

    def _holds(self, item: Any, names: frozenset[str]) -> bool:
        """Whether anything of `item` would stay."""
        return any(
            element.VR in ("UI", "SQ")
            or self._stays(element.keyword, set(element.VR.split(" or ")), element.value, names)
            for element in item
        )

    def _stays(self, keyword: str, kinds: set[str], value: Any, names: frozenset[str]) -> bool:
        """Whether an element may stay: numbers, pixels, code strings and what a list keeps, unless a name is in it."""
        values = list(value) if isinstance(value, self._many) else [] if value is None or value == "" else [value]
        if kinds <= _NUMERIC:
            # Where numbers cannot be read as such, pydicom hands them out as text.
            return all(isinstance(each, int | float | Decimal) for each in values)
        if keyword in KEPT_BULK:
            return True
        texts = [str(each) for each in values]
        if any(name in text.upper() for text in texts for name in names):
            return False
        if keyword in _KNOWN_TERMS:
            return all(_KNOWN_TERMS[keyword](text) for text in texts)
        if keyword in KEPT_TEXT:
            return True
        if kinds == {"CS"}:
            return all(_CODE_STRING.fullmatch(text) for text in texts)
        return kinds <= _TEXT and all(text in _PLACEHOLDERS for text in texts)

    def _trim(self, dataset: Any) -> None:
        """Cuts native pixel data to its length: what comes after it is no picture. Raises Unfit if it is too short."""
        if "PixelData" not in dataset:
            raise Unfit
        syntax = dataset.file_meta.TransferSyntaxUID
        if syntax not in self._uids or dataset.SOPClassUID not in self._uids:
            raise Unfit
        if not syntax.is_compressed or syntax.is_deflated:
            length = library("pydicom.pixels.utils").get_expected_length(dataset, "bytes")
            if length < 1 or len(dataset.PixelData) < length:
                raise Unfit
            dataset.PixelData = dataset.PixelData[:length] + bytes(length % 2)

    def _sign(self, dataset: Any) -> None:
        """Pseudonym, what was done (PS3.15 E.1.1, codes of PS3.16 CID 7050), and a new preamble and meta header."""
        made = self._pydicom.Dataset
        dataset.PatientName = dataset.PatientID = self._pseudonym
        dataset.PatientIdentityRemoved = "YES"
        dataset.DeidentificationMethod = f"fedprivseg: {EDITION} basic profile and allow-list"
        code = made()
        code.CodeValue, code.CodingSchemeDesignator = "113100", "DCM"
        code.CodeMeaning = "Basic Application Confidentiality Profile"
        dataset.DeidentificationMethodCodeSequence = [code]
        dataset.LongitudinalTemporalInformationModified = "REMOVED"
        meta = library("pydicom.dataset").FileMetaDataset()
        meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
        meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.file_meta = meta
        dataset.preamble = bytes(128)


def _each(dataset: Any, act: Callable[[Any], None]) -> None:
    """`act` on `dataset` and then on the items of all sequences that it left, at every depth."""
    act(dataset)
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                _each(item, act)


def _held(dataset: Any, within: str = "") -> Iterator[tuple[str, bool]]:
    """All attributes at every depth, by keyword, and whether each holds anything but a placeholder. Only sequences are
    decoded."""
    dictionary = library("pydicom.datadict")
    for tag in list(dataset.keys()):
        keyword = dictionary.keyword_for_tag(tag)
        name = within + (keyword or (PRIVATE if tag.is_private else UNKNOWN))
        if keyword and dictionary.dictionary_VR(tag) == "SQ":
            items = dataset[tag].value or ()
            yield name, len(items) > 0
            for item in items:
                yield from _held(item, f"{name}.")
        else:
            value = dataset.get_item(tag).value
            # Pixels are bytes, and long: only what is text can be a placeholder.
            yield name, value not in (None, "", b"") and (isinstance(value, bytes) or str(value) not in _PLACEHOLDERS)


def _within(keyword: str) -> set[str]:
    """The sequences in which an attribute stands: 'A' and 'A.B' for 'A.B.C'."""
    parts = keyword.split(".")
    return {".".join(parts[:depth]) for depth in range(1, len(parts))}


def _words(dataset: Any) -> Iterator[str]:
    """The words of all persons' names and of the patient's codes at every depth, in upper case; short ones are left out, since
    they stand within too many others."""
    dictionary = library("pydicom.datadict")
    for tag in list(dataset.keys()):
        keyword = dictionary.keyword_for_tag(tag)
        kind = dictionary.dictionary_VR(tag) if keyword else ""
        if kind == "SQ":
            for item in dataset[tag].value or ():
                yield from _words(item)
        elif kind == "PN" or keyword in _CODES:
            yield from _NAME.findall(str(dataset[tag].value).upper())


def _remove(dataset: Any, tag: Any, keyword: str) -> None:
    if keyword in NEEDED:
        raise Unfit
    del dataset[tag]
