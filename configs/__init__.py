"""Experiments, one file each; every file is a short change to `base`."""
