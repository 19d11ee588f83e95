"""Request, token and concurrency limits for AI inference APIs in Flask."""
