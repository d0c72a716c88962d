"""VGMIDI: piano pieces from video games, rated by about 30 people each, a value a bar."""
