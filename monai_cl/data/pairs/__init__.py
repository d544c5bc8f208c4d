"""Pairs of crops that show the same anatomy in two patients."""
