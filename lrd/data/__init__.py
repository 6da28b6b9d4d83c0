"""Problems and where they come from: files, made tasks, codebooks, the Hub."""
