"""What both stages share: table schemas, the concept store, manifests, configuration, the DuckDB views."""
