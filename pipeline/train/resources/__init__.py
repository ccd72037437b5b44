"""Memory, disk and cores: what this machine has, what a training needs, and running out."""
