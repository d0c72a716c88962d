"""DEAM: 1802 songs, rated twice a second; annotators are known for ids above 1000."""
