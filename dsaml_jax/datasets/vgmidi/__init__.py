"""VGMIDI: piano pieces from video games, rated by about 30 people each, one value per bar."""
