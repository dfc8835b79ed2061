"""The embedded data: a consortium of five made-up centres."""
