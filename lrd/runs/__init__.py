"""Run directories: what a cell leaves, where it stands, how it moves between hosts. No torch."""
