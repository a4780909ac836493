"""The composition of a context: manifest, container, settings, storage and topology."""
