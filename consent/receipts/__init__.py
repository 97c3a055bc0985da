"""What people and uses are given in writing, and the single file that checks it."""
