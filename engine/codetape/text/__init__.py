"""Text made safe for where it is shown: terminals, HTML, Markdown, CSV, diffs. Knows nothing of sessions."""
