"""Runs side by side: what can be compared (`runs`), as a table, as figures, and as a page that holds both."""
