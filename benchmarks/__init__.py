"""Measurements whose figures stand in the documents, each with its command."""
