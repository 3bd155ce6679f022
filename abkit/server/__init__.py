"""The HTTP face of decisions: what Argo, Flagger, Kayenta, Prometheus and OpenFeature ask.

`abkit serve` runs it. It reads state files, the snapshot and the published store, never the
writer's lock: it answers when DuckDB is locked or gone, and says so. Each contract has a file of
its own here; `board` reads, `auth` and `limits` guard, `app` puts them together.
"""

from __future__ import annotations
