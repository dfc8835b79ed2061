"""The life of one patient's data in a run.

`record` has what a trace says, `reading` what it is read from; `site` and `server` make one; `figure`, `page`, `prov` show it.
"""
