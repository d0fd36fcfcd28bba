"""Jobs that run unattended for years: cleaning, rotating, watching, scheduling."""
