"""Adapters of codetape: what translates between its ports and models, sandboxes and stores."""
