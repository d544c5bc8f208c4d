"""Picture archives: series from a server and objects back to it, by DICOMweb or DIMSE."""
