"""Sets the hub up and runs it here; standard library only, because it runs before anything is installed."""
