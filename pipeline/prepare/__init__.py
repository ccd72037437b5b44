"""Data stages: DataFrame in, DataFrame out, on Sail or Apache Spark."""
