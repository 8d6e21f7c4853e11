"""Tools for developers, run from the root of a checkout as python -m tools.<name>."""
