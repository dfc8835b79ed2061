"""From DICOM of a hospital to de-identified images."""
