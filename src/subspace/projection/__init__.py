"""Into a subspace and out of it: where a basis lives, how it is found, when it is found anew."""
