"""What is done to the frames of a clip while it is read."""
