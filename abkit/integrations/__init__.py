"""abkit inside of web frameworks, OpenFeature and Prometheus: one file each, imported by name.

None of them is needed to serve: `abkit.Client` works anywhere. A file whose framework is not
installed raises `MissingExtraError` when it is imported.
"""
