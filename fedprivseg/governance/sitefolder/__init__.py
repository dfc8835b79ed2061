"""What lies in a site's own folder: its configuration, its vault, its notes and its history."""
