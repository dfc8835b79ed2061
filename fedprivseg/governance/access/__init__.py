"""Who may see which record of a patient at a site: optional, and out of a run's path."""
