"""What goes on by itself: looking at the world, mending what differs, doubting that it is so."""
