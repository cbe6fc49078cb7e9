"""Hyperparameter sweeps; may import everything but the commands, `tools` and `benchmarks`."""
