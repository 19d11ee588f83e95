"""The app's own calls to providers: paced, retried, and counted in the same store as what the app's clients call."""
