"""A run as a page that a clinician can read: `report_page`, from what the other modules read or draw."""
