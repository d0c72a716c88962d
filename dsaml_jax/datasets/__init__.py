"""Readers of DEAM, PMEmo, MERP, and VGMIDI, the simulated data set, filters, and splits."""
