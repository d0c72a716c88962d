"""Figures and tables of runs, comparisons, and data sets."""
