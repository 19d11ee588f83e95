"""Plans: what each payer of a request may use, read from a file or a dictionary at the start."""
