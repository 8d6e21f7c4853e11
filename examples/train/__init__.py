"""`python -m examples.train`: training of the reference networks."""
