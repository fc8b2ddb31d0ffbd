"""One run's training: model, optimizer, data and callbacks in, a finished run folder out."""
