"""XMP packets: `packet` reads and edits one, `keywords` merges labels with the keywords that are there."""
