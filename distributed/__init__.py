"""One run on several devices, processes and machines; imports `errors` and JAX only."""
