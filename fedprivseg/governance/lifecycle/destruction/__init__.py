"""The destruction of what one site of a run holds of its subjects: ordered, approved by somebody else, executed, proved.

T/SCGS 313008-2024 clauses 5.8-a to 5.8-f. What goes: the site's vault, by the destruction of its key or, if it was never
encrypted, by overwriting; predictions; images kept on the network grid; lists of who took part; at the server the site's
shards and measures; images that the study shows. Models that were trained on the shards stay and are named, or go too. The
site's key, ledger, policy, consent and agreement files stay, for they are the proof, and so do the study's numbers. The
patients' images stay in the hospital's own archive.
"""
