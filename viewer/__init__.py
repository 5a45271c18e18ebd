"""Show runs and their results, read-only: a Streamlit app in two languages and a self-contained HTML report.

The viewer computes no physics. `charts`, `curves`, `recorded`, `figures` and `tables` turn recordings and results into
Altair charts and data frames and work in a notebook as well; only `app`, `asgi` and `pages` know Streamlit.
"""
