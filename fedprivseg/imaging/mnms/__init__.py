"""The release of the M&Ms challenge: its layout, its table, and what its masks look like. Only this folder and `phantom` know
hearts."""
