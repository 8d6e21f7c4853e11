"""Shared by all families: dispatch, operators, argument checks, numerics."""
