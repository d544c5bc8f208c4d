"""Masks as DICOM Segmentation objects: coded names of classes, and the object on the grid of its series."""
