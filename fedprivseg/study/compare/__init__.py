"""Runs side by side: what can be compared (`runs`), as a table (`tables`), as a page with its pictures (`page`)."""
