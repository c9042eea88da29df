"""Everything that makes data."""
