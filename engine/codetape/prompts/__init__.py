"""A session's state to the messages of a call, and a reply's text to values. Prompt packs are data, and untrusted."""
