"""What in a DICOM header speaks for a higher level: a face, text burned into the picture, or not knowing.

De-identified images are level 3 of T/SCGS 313008-2024 clause 5.5: a person could be told again from them. A face or a burned-in
name identifies directly, which is level 4 at least. A header is evidence and no proof: a body part that is not stated may be
a head, so that counts as one until somebody states it; and a wrong header is believed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fedprivseg.imaging.dicom.library import library

BASE_LEVEL = 3
"""Of de-identified clinical images (clause 5.5)."""

IDENTIFYING_LEVEL = 4

FACE_PARTS = frozenset(
    {
        "BRAIN",
        "CAROTID",
        "CEREBRUM",
        "CSPINE",
        "EAR",
        "EYE",
        "FACE",
        "HEAD",
        "HEADNECK",
        "IAC",
        "JAW",
        "MANDIBLE",
        "MAXILLA",
        "MOUTH",
        "NECK",
        "NOSE",
        "ORBIT",
        "PARANASALSINUS",
        "PAROTID",
        "PHARYNX",
        "PITUITARY",
        "SINUS",
        "SKULL",
        "SKULLBASE",
        "TEETH",
        "TMJ",
        "TONGUE",
        "WHOLEBODY",
        "ZYGOMA",
    }
)
"""Body parts whose pictures may show a face or enough of a head to draw one; terms of PS3.16 annex L without blanks."""

BODY_PARTS = frozenset(
    {
        "ABDOMEN",
        "ABDOMENPELVIS",
        "ADRENAL",
        "ANKLE",
        "AORTA",
        "ARM",
        "AXILLA",
        "BACK",
        "BLADDER",
        "BREAST",
        "BRONCHUS",
        "BUTTOCK",
        "CALCANEUS",
        "CALF",
        "CARDIAC",
        "CHEST",
        "CHESTABDOMEN",
        "CHESTABDPELVIS",
        "CLAVICLE",
        "COCCYX",
        "COLON",
        "CORONARYARTERY",
        "DUODENUM",
        "ELBOW",
        "ESOPHAGUS",
        "EXTREMITY",
        "FEMUR",
        "FINGER",
        "FOOT",
        "FOREARM",
        "GALLBLADDER",
        "HAND",
        "HEART",
        "HIP",
        "HUMERUS",
        "ILEUM",
        "ILIUM",
        "KIDNEY",
        "KNEE",
        "LEG",
        "LIVER",
        "LOWERLIMB",
        "LSPINE",
        "LUNG",
        "MEDIASTINUM",
        "OVARY",
        "PANCREAS",
        "PATELLA",
        "PELVIS",
        "PROSTATE",
        "RADIUS",
        "RECTUM",
        "RIB",
        "SCAPULA",
        "SCROTUM",
        "SHOULDER",
        "SIJOINT",
        "SPLEEN",
        "SSPINE",
        "STERNUM",
        "STOMACH",
        "TESTIS",
        "THIGH",
        "THORAX",
        "THUMB",
        "TIBIA",
        "TOE",
        "TSPINE",
        "ULNA",
        "UPPERLIMB",
        "UTERUS",
        "WRIST",
    }
)
"""Body parts whose pictures show no face."""

FACE_MODALITIES = frozenset({"IO", "OP", "OPM", "OPT", "OPTBSV", "OPTENF", "OPV", "OAM", "PX", "XC"})
"""Photographs, teeth and eyes: personal biometric images of clause 5.1.3."""

UNMARKED_MODALITIES = frozenset({"CT", "MR", "NM", "PT"})
"""Modalities whose primary images have no burned-in text unless the header says so; elsewhere it must be ruled out."""

MODALITIES = (
    FACE_MODALITIES
    | UNMARKED_MODALITIES
    | {"CR", "DX", "ES", "IVOCT", "IVUS", "MG", "OCT", "OT", "RF", "RG", "SM", "US", "XA"}
)
"""Modalities of pictures (PS3.16 CID 29, and OT for others)."""

_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_DESCRIPTIONS = frozenset(
    {
        "CodeMeaning",
        "PerformedProcedureStepDescription",
        "ProtocolName",
        "RequestedProcedureDescription",
        "ScheduledProcedureStepDescription",
        "SeriesDescription",
        "StudyDescription",
    }
)
_HEAD = re.compile(
    # 'headfirst' is how a patient lies; 'sinus' alone is of the heart as often as of the head.
    r"brain|cerebr|cranial|craniu|maxill|mprage|paranasal|skull|whole.?body"
    r"|(?<![a-z])(dental|face|facial|flair|head(?![ _-]?first)|jaw|mandib|neck|neuro|orbit|sinuses|tmj)"
    r"|[头頭颅顱脑腦颌眼鼻颈頸]|面部|颜面",
    re.IGNORECASE,
)


@dataclass(frozen=True, order=True)
class Concern:
    """Something that raises the level of images: the `level` 1 to 5 that they have at least, and the `reason`."""

    level: int
    reason: str


def term(part: str) -> str:
    """A body part as the lists above have it: upper case, without blanks, underscores and hyphens."""
    return re.sub(r"[ _-]", "", part.upper())


def concerns(dataset: Any, stated: str | None) -> tuple[Concern, ...]:
    """What the header `dataset` (pydicom, before it is de-identified) gives reason for; nothing of it is quoted.

    stated: the body part that the site itself states, a term of `BODY_PARTS` or `FACE_PARTS`, or None. It counts where the
    header names no known one, and does not lift what the header says.
    """
    found = [*_face(dataset, stated), *_text(dataset)]
    return tuple(Concern(IDENTIFYING_LEVEL, reason) for reason in sorted(set(found)))


def level(raised: tuple[Concern, ...]) -> int:
    """The level that images with these concerns have at least."""
    return max((BASE_LEVEL, *(concern.level for concern in raised)))


def _face(dataset: Any, stated: str | None) -> Iterator[str]:
    examined = str(dataset.get("BodyPartExamined") or "")
    part = term(examined)
    if part in FACE_PARTS or stated in FACE_PARTS or _HEAD.search(examined):
        yield "the body part shows a face or a head"
    elif part not in BODY_PARTS and stated is None:
        yield "the body part is not stated in known terms, so a face cannot be ruled out"
    if str(dataset.get("Modality") or "") in FACE_MODALITIES:
        yield "the modality makes personal biometric images"
    if dataset.get("RecognizableVisualFeatures") == "YES":
        yield "the header says that a person is recognisable"
    if any(_HEAD.search(text) for text in _described(dataset)):
        yield "a description speaks of a head or a face"


def _text(dataset: Any) -> Iterator[str]:
    burned = str(dataset.get("BurnedInAnnotation") or "")
    modality = str(dataset.get("Modality") or "")
    if burned == "YES":
        yield "the header says that text is burned into the picture"
    elif burned != "NO" and modality not in UNMARKED_MODALITIES:
        yield "the header does not say that no text is burned into the picture, and the modality often has some"
    kind = str(dataset.get("SOPClassUID") or "")
    if kind == _CAPTURE or kind.startswith(f"{_CAPTURE}.") or "ConversionType" in dataset:
        yield "the picture is a secondary capture, such as of a screen or of film"
    image_type = dataset.get("ImageType") or ""
    words = " ".join([image_type] if isinstance(image_type, str) else list(image_type))
    if re.search(r"SCREEN|CAPTURE|REPORT", words.upper()):
        yield "the picture is saved from a screen or a report"
    for group in range(0x6000, 0x6020, 2):
        position = dataset.get((group, 0x0102))
        if position is not None and position.value:
            yield "a drawing is kept in unused bits of the pixels, and stays there"


def _described(dataset: Any) -> Iterator[str]:
    """All descriptions at every depth. Other elements are not decoded, so that a damaged one is no hindrance here."""
    dictionary = library("pydicom.datadict")
    for tag in list(dataset.keys()):
        keyword = dictionary.keyword_for_tag(tag)
        if keyword in _DESCRIPTIONS:
            yield str(dataset[tag].value)
        elif keyword and dictionary.dictionary_VR(tag) == "SQ":
            for item in dataset[tag].value or ():
                yield from _described(item)
