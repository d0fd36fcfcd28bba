"""How records are told: the terminal, the page, the document."""
