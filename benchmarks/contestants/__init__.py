"""Who takes part: a module each, loaded only in the process that runs it."""
