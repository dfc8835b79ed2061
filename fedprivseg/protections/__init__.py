"""What is done to a payload before it may leave a site."""
