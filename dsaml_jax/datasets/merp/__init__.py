"""MERP: 54 songs rated by 277 people, ten times per second."""
