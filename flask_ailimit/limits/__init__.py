"""Which limits apply, and to which subject: decorators, the limits of an endpoint, and key functions."""
