"""DICOM, NIfTI, ITK and map files: headers, geometry, pixels; numpy alone, no torch, no MONAI."""
