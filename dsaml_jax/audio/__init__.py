"""Log-mel images and global embeddings from audio."""
