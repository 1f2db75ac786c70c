"""`cloudai simulate`: recorded arrivals replayed over an imagined fleet, policy beside policy."""
