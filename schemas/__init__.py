"""What the data is: the Arrow schemas of every artifact and the manifest that seals it."""
