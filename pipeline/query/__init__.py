"""Answers from a finished run: recommendations, neighbours, files of ids."""
