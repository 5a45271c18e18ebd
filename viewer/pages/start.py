"""The script that Streamlit runs.

It lies here, and not beside `app.py`, because Streamlit takes a folder `pages` next to its script for pages of its
own: the first visitor of `/temperature` would get that bare file without the app around it.
"""

from thermodl.viewer.app import main

main()
