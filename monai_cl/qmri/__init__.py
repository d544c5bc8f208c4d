"""Physics of quantitative MR: signal equations, phase graphs, tissues, protocols. Torch alone."""
