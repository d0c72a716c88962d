"""The experiment as a user writes it, checked and frozen."""
