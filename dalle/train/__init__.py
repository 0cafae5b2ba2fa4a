"""Training: one loop, and a task for each model that it trains."""
