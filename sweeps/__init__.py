"""Hyperparameter sweeps, the parts of sweep.py. See "A sweep" in ARCHITECTURE.md."""
