"""Charts of the page as HTML with inline SVG: lines stretch with the page, words keep their size."""
