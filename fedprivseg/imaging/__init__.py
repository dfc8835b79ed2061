"""Images and masks: from files to arrays on the network grid.

nibabel loads the whole DICOM library beside itself wherever that is installed, for an extension of NIfTI headers that nothing
here reads. Most commands need no DICOM. So nibabel is loaded here, before any module of this part can do so, and finds no DICOM
library; whatever needs one imports it afterwards as ever (`dicom_library`).
"""

from __future__ import annotations

import sys

if "nibabel" not in sys.modules and "pydicom" not in sys.modules:
    sys.modules["pydicom"] = None  # type: ignore[assignment]  # Python's way to say that there is none
    try:
        import nibabel  # noqa: F401
    finally:
        del sys.modules["pydicom"]
