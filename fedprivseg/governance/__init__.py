"""The rules of data governance at each site, and what proves that they were kept."""
