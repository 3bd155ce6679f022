"""The dashboard: navigation only. `abkit dashboard WORKSPACE` starts it.

Every page asks `data`, which asks `abkit.workspace` and `abkit.store.reader`; nothing is computed
here, and nothing can be changed from here.
"""

from __future__ import annotations

import atexit
import gc

import streamlit as st


@st.cache_resource(show_spinner=False)
def set_imports_aside() -> None:
    """Spare the garbage collector what was imported, once, after the first page.

    Streamlit collects garbage after every run. Looking through all of pandas, plotly and duckdb
    again took 40 of the 60 ms of processor time that a refresh cost.
    """
    gc.collect()
    gc.freeze()
    atexit.register(gc.unfreeze)  # else duckdb calls all of it leaked when the process ends


st.set_page_config(page_title="abkit", page_icon="\N{WHITE HEAVY CHECK MARK}", layout="wide")

st.navigation(
    [
        st.Page("screens/experiments.py", title="Experiments", default=True),
        st.Page("screens/experiment.py", title="Experiment", url_path="experiment"),
    ],
    position="top",
).run()  # the folder is not called "pages": streamlit would run those past this file

set_imports_aside()
