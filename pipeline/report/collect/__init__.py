"""What goes on the page, from the artifacts of a run."""
