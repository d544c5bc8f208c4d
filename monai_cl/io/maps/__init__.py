"""Quantitative MR maps from files: which there are, what their names tell and hide, their units and values."""
