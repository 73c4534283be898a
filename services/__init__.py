"""The control plane: accepts jobs, keeps their truth in SQL, wakes workers through Redis, stores what comes out."""
