"""Batches from a datalist: prepared volumes, draws that are functions of the step, slices by partition, faults."""
