"""The demo: real models answer real Census rows while abkit rolls them out."""
