"""Training of the reference networks: `python -m pixelkernels train`."""
