"""Studies of the method: resumable commands whose tables stand in docs/."""
