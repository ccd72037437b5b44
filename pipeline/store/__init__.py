"""Storage, Parquet, artifacts, manifests and runs."""
