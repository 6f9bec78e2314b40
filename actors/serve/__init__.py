"""The service on Ray Serve: deployments, their replicas, and what its proxy gets."""
