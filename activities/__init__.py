"""What a workflow may ask of each team."""
