"""What an output folder holds: the plan, the lease, receipts, and the files that count."""
