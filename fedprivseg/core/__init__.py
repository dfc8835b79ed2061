"""What every room uses: records, configuration, files, seeds, results, measures and pages. Knows no other room."""
