"""The hash-chained record of what left and what was refused, and who vouches for it."""
