"""Frames to numbers: statistics of the runs. No torch, and no sentences."""
