"""The demonstration trial: simulated scanners, planted events and the client that uploads them."""
