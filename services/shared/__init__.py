"""What all three teams need and none owns."""
