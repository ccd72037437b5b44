"""The same result as the data stages, by other engines in one process."""
