"""Our own answers: errors, bodies and headers. The limit headers are in flask_ailimit.headers."""
