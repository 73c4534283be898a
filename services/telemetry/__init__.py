"""What operators see of the running product: metrics for Prometheus, logs, traces. It decides nothing."""
