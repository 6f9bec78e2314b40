"""What people start: the command line, job specs, reports, the demo and the bench."""
