"""A concept store as training batches: selected by DuckDB, read by workers, masked."""
