"""Frame-level affect from video."""
