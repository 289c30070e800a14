"""The front of a study: computed, named, drawn and written."""
