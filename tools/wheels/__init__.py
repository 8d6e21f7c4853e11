"""Build, audit and try the wheels."""
