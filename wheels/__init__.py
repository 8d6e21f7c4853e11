"""How the wheels are built, audited, tried and published."""
