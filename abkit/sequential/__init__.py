"""Sequential statistics: tests that stay right while people watch."""
