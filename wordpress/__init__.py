"""What stands on WordPress's side of the wire: the demo network that `up`, the tests and the benches call."""
