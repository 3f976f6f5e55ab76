"""The page of a comparison: one HTML file, one module a section."""
