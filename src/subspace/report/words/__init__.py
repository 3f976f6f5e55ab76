"""Every word that a page or picture shows, in each language."""
