"""Workloads at the papers' sizes, what people use today, and the measuring. Start at `run.py`."""
