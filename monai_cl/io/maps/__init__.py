"""Quantitative MR maps from files: their kinds, names, units and values."""
