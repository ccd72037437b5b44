"""Planted worlds, artifacts written by hand, servers and clusters that tests share."""
