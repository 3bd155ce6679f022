"""Fixed-horizon statistics: pure functions of sufficient statistics."""
