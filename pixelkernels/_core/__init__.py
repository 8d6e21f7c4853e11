"""What all families share: backends, operators, checks of arguments, numerics."""
