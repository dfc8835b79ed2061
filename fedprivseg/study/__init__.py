"""What is done with a scenario: run, compare, attack, report. Simulated hospitals live here."""
