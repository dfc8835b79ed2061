"""The life of one patient's data in a run, with the ledger lines that say so: as a table, an image and as PROV-JSON."""
