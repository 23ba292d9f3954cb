"""What files of frames hold, and what looks wrong in them."""
