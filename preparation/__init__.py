"""Prepares data sets on disk, once; imports `data_sources`, `files` and `errors` only."""
