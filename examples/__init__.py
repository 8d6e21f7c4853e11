"""Demonstrations of the library, run from the root of a checkout; the wheels leave them out."""
