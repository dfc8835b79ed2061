"""De-identification of arrays, tables and files (T/SCGS 313008-2024 clause 5.2)."""
