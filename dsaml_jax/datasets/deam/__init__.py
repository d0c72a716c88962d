"""DEAM: 1802 songs, rated twice per second; songs with ids above 1000 identify their annotators."""
