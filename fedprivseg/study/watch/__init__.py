"""A page to watch a run: read-only, on this machine alone, behind a random token.

`progress_now` reads what the run's folder says at this moment, `tally` keeps count of the server's ledger as it grows,
`prometheus` says the same to a machine, `web_app` serves it, `serve` listens.
"""
