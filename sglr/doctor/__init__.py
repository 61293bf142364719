"""What `sglr doctor` looks at: what a run lacks, on this machine too, and the space and time that it needs."""
