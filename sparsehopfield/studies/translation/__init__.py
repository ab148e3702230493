"""Translation with sparse associations: parts of a study."""
