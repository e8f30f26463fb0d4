"""From words that somebody wrote to merged edits."""
