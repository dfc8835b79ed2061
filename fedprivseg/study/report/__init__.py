"""A run as a page that a clinician can read (`page`), and its drawings (`figures`), which other pages use too."""
