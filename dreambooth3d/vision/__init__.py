"""Foundation: pictures in, pictures and numbers out (segment, frame, measure, embed)."""
