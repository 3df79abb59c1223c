"""What works without the hub: shipped inside every export package."""
