"""What all pages share: the frame and the style sheet (`frame`), how figures are drawn (`drawing`), who looks how (`looks`)."""
