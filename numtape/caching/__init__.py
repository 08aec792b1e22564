"""Which tape a call gets: what tells calls apart, the tapes kept, and what retraces mean."""
