"""The dashboard: navigation only. `abkit dashboard WORKSPACE` starts it.

Every page asks `data`, which asks `abkit.workspace` and `abkit.store.reader`; nothing is computed
here, and nothing can be changed from here.
"""

from __future__ import annotations

import streamlit as st

st.set_page_config(page_title="abkit", page_icon="\N{WHITE HEAVY CHECK MARK}", layout="wide")

st.navigation(
    [
        st.Page("pages/experiments.py", title="Experiments", default=True),
        st.Page("pages/experiment.py", title="Experiment", url_path="experiment"),
    ],
    position="top",
).run()
