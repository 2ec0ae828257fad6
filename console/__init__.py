"""What an operator sees and is told: the page, rq-dashboard, messages."""
