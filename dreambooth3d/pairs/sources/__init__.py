"""Where raw pairs come from: one small plug for each kind of input."""
