"""Other people's training loops and models: one library a module, imported when it is asked for."""
