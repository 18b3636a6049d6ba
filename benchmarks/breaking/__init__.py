"""What breaks a study at a chosen step of its work with the disk, and what a study holds afterwards."""
