"""The benchmark engine: plan, run, record, report."""
