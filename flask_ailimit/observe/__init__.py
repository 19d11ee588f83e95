"""What happened: the settlements of an app, kept in a file, as usage pages and as a table of charges."""
