"""Patients stay unnamed: keyed pseudonyms, the table of ids beside the key, whose each mask is; no torch, no MONAI."""
