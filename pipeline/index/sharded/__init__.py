"""An index in shards: built by tasks over parts of the catalogue, one behind one search."""
