"""Protocols, methods, metrics, and bootstrap intervals."""
