"""The real kubectl as the judge of what an undo is: random histories, what it does with them, where we differ."""
