"""Stages, the training loop, the meta-step, state, checkpoints, and devices."""
