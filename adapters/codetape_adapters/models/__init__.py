"""Models: any OpenAI-compatible server, and a tape that answers as it once did."""
