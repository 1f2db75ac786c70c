"""What runs on a node: capacity, runners, heartbeat."""
