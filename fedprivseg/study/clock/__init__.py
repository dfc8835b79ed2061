"""The virtual clock: what a finished run would take between real hospitals, from its true bytes and measured seconds.

`transfer` has the model of a line, `presence` of a site's comings and goings, `exchanges` reads what the server recorded,
`timeline` lets simulated time pass, `words` says it, `gantt` draws it, `what_if` asks the same of other profiles.
"""
