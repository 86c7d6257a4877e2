"""Every knob under its heading: the one home of its default, its range and its meaning."""
