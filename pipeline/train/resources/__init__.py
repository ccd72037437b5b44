"""Memory, disk and cores: what is available, what a training needs, and running out."""
