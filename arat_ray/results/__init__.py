"""Results: Parquet tables of what was tried, what was measured, and at what cost."""
