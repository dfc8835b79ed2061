"""Withdrawal, archives, backups, destruction and breach drills."""
