"""The API gateway: what is HTTP and nothing else. The only service that knows FastAPI."""
