"""From a datalist to batches: prepared volumes, draws that are functions of the step, slices by partition, faults."""
