"""Matrix functions that more than one room needs: bases, angles between them, seeded sketches, block-wise codes."""
