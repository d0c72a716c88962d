"""From sound to log-mel images and global embeddings."""
